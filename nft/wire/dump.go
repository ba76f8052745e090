package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The library's own readers leave out what they don't know (expressions, the key of a verdict map,
// verdicts of elements), and what is left out would compare equal. So this file asks and read.go
// decodes.

// dumpInterrupted is the flag by which the kernel says that the ruleset changed during a dump
// (NLM_F_DUMP_INTR).
const dumpInterrupted = netlink.HeaderFlags(unix.NLM_F_DUMP_INTR)

// errInterrupted says that a dump has to be repeated.
var errInterrupted = errors.New("the ruleset changed while it was read")

const familyINet = unix.NFPROTO_INET

// ask sends one request about our table and returns the answers' attributes.
func (c *Conn) ask(message uint16, flags netlink.HeaderFlags,
	attrs ...netlink.Attribute) ([][]byte, error) {
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	request := netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{familyINet, unix.NFNETLINK_V0, 0, 0}, body...),
	}
	if err := c.raw.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, err
	}
	c.next++
	replies, err := c.raw.Execute(request)
	if err != nil {
		return nil, err
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	var bodies [][]byte
	interrupted := false
	for _, m := range replies {
		interrupted = interrupted || m.Header.Flags&dumpInterrupted != 0
		if len(m.Data) < 4 { // struct nfgenmsg
			return nil, fmt.Errorf("an answer of %d bytes is none of nftables", len(m.Data))
		}
		if m.Data[0] == familyINet || message == unix.NFT_MSG_GETGEN {
			bodies = append(bodies, m.Data[4:])
		}
		c.next = m.Header.Sequence + 1
	}
	if interrupted {
		return bodies, errInterrupted
	}
	return bodies, nil
}

// maxDumps is how often one dump is tried that others' changes interrupt.
const maxDumps = 20

// dump sends a request for a list. What is interrupted is repeated, but once reading has become
// impatient, only where the list isn't of our table alone: the kernel goes on in a list by
// counting, and nobody else changes ours.
func (c *Conn) dump(message uint16, attrs ...netlink.Attribute) (bodies [][]byte, err error) {
	for range maxDumps {
		bodies, err = c.ask(message, netlink.Dump, attrs...)
		if !errors.Is(err, errInterrupted) {
			return bodies, err
		}
		if c.impatient && len(attrs) > 0 {
			return bodies, nil
		}
	}
	return nil, err
}

// dumpTwice repeats a list of several messages until it comes twice alike. Some time after a change
// the kernel resizes the hash table of a large set, and doesn't say so: a list that was begun
// before goes on at another place, and lacks members or has them twice.
func (c *Conn) dumpTwice(message uint16, attrs ...netlink.Attribute) ([][]byte, error) {
	bodies, err := c.dump(message, attrs...)
	for range maxDumps {
		if err != nil || len(bodies) < 2 {
			return bodies, err
		}
		before := bodies
		bodies, err = c.dump(message, attrs...)
		if err == nil && slices.EqualFunc(before, bodies, bytes.Equal) {
			return bodies, nil
		}
	}
	return nil, errors.Join(err, errInterrupted)
}

func nameAttr(kind uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(name), 0)}
}

// generation is the number of the ruleset's last change, in the whole network namespace.
func (c *Conn) generation() (uint32, error) {
	bodies, err := c.ask(unix.NFT_MSG_GETGEN, 0)
	if err != nil {
		return 0, fmt.Errorf("reading the generation: %w", err)
	}
	var id uint32
	for _, body := range bodies {
		err = decode(body, func(ad *netlink.AttributeDecoder) error {
			if ad.Type() == unix.NFTA_GEN_ID {
				id = ad.Uint32()
			}
			return nil
		})
	}
	return id, err
}

// decode calls f for every attribute.
func decode(body []byte, f func(*netlink.AttributeDecoder) error) error {
	ad, err := netlink.NewAttributeDecoder(body)
	if err != nil {
		return err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if err := f(ad); err != nil {
			return err
		}
	}
	return ad.Err()
}
