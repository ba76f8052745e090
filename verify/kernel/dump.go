// Package kernel reads table inet sluice back from the kernel and says what it does to packets: not
// what somebody meant to write, but what is there.
//
// [Read] asks the kernel by netlink and makes a [Program] of the answers. It shares no code with
// package nft, neither with what writes the table nor with what reads it there, so that no
// misunderstanding is on both sides. An [Evaluator] runs a [Class] of packets through the base
// chains of a hook: everything about the class is fixed but protocol and destination port, and the
// [Outcome] says for which of those the packets pass.
//
// Whatever the package doesn't understand is an error: an expression, an attribute, a flag, a chain
// with another policy. So nothing in the table can have a say without being judged.
//
// It isn't for other tables, for what translations lead to (a translation accepts, like the
// kernel), or for changes: see package nft.
package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Options say how to reach the kernel. The zero value is fine.
type Options struct {
	// NetNS is a file descriptor of the network namespace; 0 is the calling thread's.
	NetNS int
}

// ErrChanging says that the kernel's rulesets changed whenever they were read.
var ErrChanging = errors.New("the ruleset changes all the time")

// errInterrupted says that a dump has to be repeated.
var errInterrupted = errors.New("the ruleset changed while it was read")

// maxTries is how often reading is tried that others' changes interrupt.
const maxTries = 20

// Read reads the table as it was at one moment. A table that isn't there is a program without
// chains. An error means that it can't be told what the table does: because reading fails, or
// because something in it isn't known.
func Read(ctx context.Context, opts Options) (*Program, error) {
	d, err := readDump(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("reading table %s: %w", tableName, err)
	}
	p, err := decodeDump(d)
	if err != nil {
		return nil, fmt.Errorf("table %s has what isn't known: %w", tableName, err)
	}
	return p, nil
}

// readDump reads the table's messages as they were at one moment, on a socket of its own. Tables
// that have an owner can be read by everybody.
func readDump(ctx context.Context, opts Options) (*dump, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: opts.NetNS})
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	defer conn.Close()
	deadline := time.Now().Add(time.Minute)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("setting a deadline: %w", err)
	}
	for range maxTries {
		d, err := readOnce(ctx, conn)
		if !errors.Is(err, errInterrupted) && !errors.Is(err, unix.EINTR) &&
			!errors.Is(err, unix.ENOENT) {
			return d, err
		}
	}
	return nil, ErrChanging
}

func readOnce(ctx context.Context, conn *netlink.Conn) (*dump, error) {
	before, err := generation(conn)
	if err != nil {
		return nil, err
	}
	d := &dump{Elements: map[string][][]byte{}}
	d.Table, err = ask(conn, unix.NFT_MSG_GETTABLE, 0, name{unix.NFTA_TABLE_NAME, tableName})
	if errors.Is(err, unix.ENOENT) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the table: %w", err)
	}
	for _, part := range []struct {
		what    string
		message uint16
		into    *[][]byte
		filter  []name
	}{
		{"chains", unix.NFT_MSG_GETCHAIN, &d.Chains, nil}, // the kernel can't filter these
		{"rules", unix.NFT_MSG_GETRULE, &d.Rules, []name{{unix.NFTA_RULE_TABLE, tableName}}},
		{"sets", unix.NFT_MSG_GETSET, &d.Sets, []name{{unix.NFTA_SET_TABLE, tableName}}},
		{"objects", unix.NFT_MSG_GETOBJ, &d.Objects, []name{{unix.NFTA_OBJ_TABLE, tableName}}},
		{"flowtables", unix.NFT_MSG_GETFLOWTABLE, &d.Flowtables,
			[]name{{flowtableTable, tableName}}},
	} {
		*part.into, err = ask(conn, part.message, netlink.Dump, part.filter...)
		if part.message == unix.NFT_MSG_GETFLOWTABLE &&
			(errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)) {
			err = nil // a kernel without them
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", part.what, err)
		}
	}
	if err := readElements(ctx, conn, d); err != nil {
		return nil, err
	}
	after, err := generation(conn)
	if err != nil {
		return nil, err
	}
	if after != before {
		return nil, errInterrupted
	}
	return d, nil
}

func readElements(ctx context.Context, conn *netlink.Conn, d *dump) error {
	for _, body := range d.Sets {
		if err := ctx.Err(); err != nil {
			return err
		}
		if is, err := ours(body, unix.NFTA_SET_TABLE); err != nil || !is {
			continue // decode says what is wrong with it
		}
		name, found, err := find(body, unix.NFTA_SET_NAME)
		if err != nil || !found {
			continue
		}
		set := text(name)
		if d.Elements[set], err = askTwice(conn, set); err != nil {
			return fmt.Errorf("reading set %s: %w", set, err)
		}
	}
	return nil
}

// askTwice lists a set's elements. A list of several messages has to come twice alike: while the
// kernel resizes a set's hash table, which it does some time after a change and doesn't tell, a
// list lacks elements.
func askTwice(conn *netlink.Conn, set string) (elements [][]byte, err error) {
	for try := range maxTries {
		before := elements
		elements, err = ask(conn, unix.NFT_MSG_GETSETELEM, netlink.Dump,
			name{unix.NFTA_SET_ELEM_LIST_TABLE, tableName}, name{unix.NFTA_SET_ELEM_LIST_SET, set})
		if err != nil || len(elements) < 2 ||
			try > 0 && slices.EqualFunc(before, elements, bytes.Equal) {
			return elements, err
		}
	}
	return nil, errInterrupted
}

// name is an attribute that holds a name.
type name struct {
	kind  uint16
	value string
}

// ask sends a request and returns what is in the answers.
func ask(conn *netlink.Conn, message uint16, flags netlink.HeaderFlags,
	names ...name) ([][]byte, error) {
	data := []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}
	for _, n := range names {
		size := 4 + len(n.value) + 1
		data = binary.NativeEndian.AppendUint16(data, uint16(size))
		data = binary.NativeEndian.AppendUint16(data, n.kind)
		data = append(data, n.value...)
		data = append(data, make([]byte, 1+(4-size%4)%4)...)
	}
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | flags}, Data: data,
	})
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, a := range answers {
		if a.Header.Flags&netlink.HeaderFlags(unix.NLM_F_DUMP_INTR) != 0 {
			return nil, errInterrupted
		}
		// Answers about other families' tables come with the chains.
		if len(a.Data) >= 4 && (a.Data[0] == unix.NFPROTO_INET || message == unix.NFT_MSG_GETGEN) {
			out = append(out, a.Data[4:])
		}
	}
	return out, nil
}

// generation is the number of the last change of any table.
func generation(conn *netlink.Conn) (uint32, error) {
	bodies, err := ask(conn, unix.NFT_MSG_GETGEN, 0)
	if err != nil {
		return 0, fmt.Errorf("reading the generation: %w", err)
	}
	for _, body := range bodies {
		id, found, err := find(body, unix.NFTA_GEN_ID)
		if err != nil {
			return 0, err
		}
		if found {
			return number(id)
		}
	}
	return 0, errors.New("no generation in the kernel's answer")
}
