package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The library's writer can't be given a message, or an expression, of one's own, and some of ours
// it can't make: see Masquerade.encode. So this file has the transaction, and write.go the messages
// in it.

// Flags of a message that creates, and of one that deletes.
const (
	create = netlink.Request | netlink.Acknowledge | netlink.Create
	remove = netlink.Request | netlink.Acknowledge
	attach = create | netlink.HeaderFlags(unix.NLM_F_APPEND)
)

// queue puts a message into the next transaction. The label says what it is about, and fill its
// attributes.
func (c *Conn) queue(label string, kind uint16, flags netlink.HeaderFlags,
	fill func(*netlink.AttributeEncoder) error) error {
	body := netlink.NewAttributeEncoder()
	body.ByteOrder = binary.BigEndian
	if err := fill(body); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	attrs, err := body.Encode()
	if err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	c.messages = append(c.messages, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: flags},
		Data: append([]byte{familyINet, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	c.subjects = append(c.subjects, subject{doing: label})
	return nil
}

// border is the message that begins or ends a transaction.
func border(kind uint16) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

// send sends messages as one transaction, and reads what the kernel says to each. It goes on after
// what the kernel refuses, so that nothing of this is taken for the answer to what is asked next.
func (c *Conn) send(messages []netlink.Message) error {
	batch := make([]netlink.Message, 0, len(messages)+2)
	batch = append(batch, border(unix.NFNL_MSG_BATCH_BEGIN))
	batch = append(batch, messages...)
	batch = append(batch, border(unix.NFNL_MSG_BATCH_END))
	if _, err := c.raw.SendMessages(batch); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	var errs []error
	for answers := 0; answers < len(messages); {
		replies, err := c.raw.Receive()
		if err != nil {
			errs = append(errs, err)
			if endsAnswers(err) {
				break
			}
			answers++
			continue
		}
		for _, m := range replies {
			if m.Header.Type == netlink.Error {
				answers++
			}
		}
	}
	return errors.Join(errs...)
}

// endsAnswers reports whether no other answer will come: the kernel didn't look at the messages,
// lost its answers, or is late.
func endsAnswers(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOBUFS) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}
