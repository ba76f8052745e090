package enforcer

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/policy/cluster"
)

// Connection is an entry of connection tracking, for people to look at.
type Connection struct {
	Protocol uint8 // IP protocol number
	// Source and Destination are the first packet's, before translation. They have no ports where
	// the protocol has none.
	Source, Destination netip.AddrPort
	// ReplySource is the end that answers: the destination after translation.
	ReplySource netip.AddrPort
	// Cut says that the connection is marked: its packets are dropped or reset.
	Cut bool
	// State is how far it has come.
	State conntrack.State
}

// Connections lists the connections that have one of the addresses as an end, as tracked in the
// network namespace of the calling thread.
func (e *Enforcer) Connections(of []netip.Addr) ([]Connection, error) {
	label := e.model.cutBit()
	table, err := conntrack.Open()
	if err != nil {
		return nil, err
	}
	defer table.Close()
	ends := cluster.Ends{}
	for _, a := range of {
		ends[a] = cluster.AsSource | cluster.AsDestination
	}
	entries, err := table.Find(queriesFor(ends), func(entry *conntrack.Entry) bool {
		return ends.Has(entry.Orig.Src, entry.Reply.Src)
	})
	if err != nil {
		return nil, fmt.Errorf("listing tracked connections: %w", err)
	}
	out := make([]Connection, len(entries))
	for i, entry := range entries {
		out[i] = Connection{
			Protocol:    entry.Orig.Proto,
			Source:      netip.AddrPortFrom(entry.Orig.Src, entry.Orig.SrcPort),
			Destination: netip.AddrPortFrom(entry.Orig.Dst, entry.Orig.DstPort),
			ReplySource: netip.AddrPortFrom(entry.Reply.Src, entry.Reply.SrcPort),
			Cut:         entry.Labels.Has(label),
			State:       entry.State,
		}
	}
	return out, nil
}
