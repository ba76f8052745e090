package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// Table is the kernel's table of connections in one network namespace. Its methods may not be
// called concurrently.
type Table struct{ handle *nl.SocketHandle }

// Open opens the table of the calling thread's network namespace, and stays in that. The caller has
// to close it.
func Open() (*Table, error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter socket: %w", err)
	}
	const patience = 10 // seconds, for one message
	timeout := unix.Timeval{Sec: patience}
	if err := errors.Join(socket.SetReceiveTimeout(&timeout),
		socket.SetSendTimeout(&timeout)); err != nil {
		socket.Close()
		return nil, fmt.Errorf("preparing a netfilter socket: %w", err)
	}
	return &Table{&nl.SocketHandle{Socket: socket}}, nil
}

// Close closes the table.
func (t *Table) Close() { t.handle.Close() }

func (t *Table) request(family uint8, message, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(netlink.ConntrackTable<<8|message, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: t.handle}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return r
}

// count is the number of entries of both families.
func (t *Table) count() (int, error) {
	const msgGetStats, statsGlobalEntries = 5, 1 // linux/netfilter/nfnetlink_conntrack.h
	// The answer says that more follows: only the acknowledgement.
	messages, err := t.request(unix.AF_UNSPEC, msgGetStats, unix.NLM_F_ACK).
		Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("counting connections: %w", err)
	}
	for _, m := range messages {
		for kind, value := range attribute.All(m[min(len(m), nl.SizeofNfgenmsg):]) {
			if kind == statsGlobalEntries && len(value) == 4 {
				return int(binary.BigEndian.Uint32(value)), nil
			}
		}
	}
	return 0, errors.New("counting connections: the kernel doesn't say")
}

// Find returns the entries that match among those that the queries find, each once; without
// queries, none. match may get entries of no query, and the same entry several times. It must not
// keep them.
func (t *Table) Find(queries []Query, match func(*Entry) bool) ([]Entry, error) {
	if len(queries) == 0 {
		return nil, nil
	}
	entries, err := t.count()
	if err != nil || entries == 0 {
		return nil, err
	}
	queries = plan(asked(queries, FiltersIPv6()), entries)
	var known *Entry // to test the filter with
	looked := func(e *Entry) bool {
		if known == nil && e.family == unix.AF_INET6 {
			entry := *e
			known = &entry
		}
		return match(e)
	}
	var found []Entry
	for _, q := range queries {
		more, err := t.list(q, looked)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	if known != nil && ipv6Filter.Load() == filterUntested {
		ipv6Filter.CompareAndSwap(filterUntested, t.testIPv6Filter(known)) // others test it, too
	}
	if len(queries) > 1 {
		found = unique(found)
	}
	return found, nil
}

// unique leaves one of each entry.
func unique(entries []Entry) []Entry {
	seen := make(map[string]bool, len(entries))
	out := entries[:0]
	for i := range entries {
		if name := string(entries[i].name()); !seen[name] {
			seen[name] = true
			out = append(out, entries[i])
		}
	}
	return out
}

// list returns the entries of a query that match. It repeats a listing that a change of the table
// interrupted.
func (t *Table) list(q Query, match func(*Entry) bool) ([]Entry, error) {
	const attempts = 10
	for i := 1; ; i++ {
		var found []Entry
		err := q.request(t).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
			if e, ok := parseEntry(m); ok && match(&e) {
				found = append(found, e)
			}
			return true
		})
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == attempts {
			return nil, fmt.Errorf("listing connections: %w", err)
		}
	}
}

// Delete deletes the entry, but not a later one with the same tuple and zone. A missing entry is no
// error.
func (t *Table) Delete(e *Entry) error {
	r := t.request(e.family, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	name := e.name()
	if e.rawID != nil {
		name = attribute.Append(name, nl.CTA_ID, e.rawID)
	}
	r.AddRawData(name)
	_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("deleting the connection from %s to %s: %w", e.Orig.Src, e.Orig.Dst, err)
	}
	return nil
}
