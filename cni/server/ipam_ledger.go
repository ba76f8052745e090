package server

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/cni"
)

func (p *allocator) ledger() cni.Ledger {
	taken := slices.AppendSeq(slices.Collect(maps.Keys(p.taken)), maps.Keys(p.cooling))
	slices.SortFunc(taken, netip.Addr.Compare)
	return cni.Ledger{
		Last:  slices.SortedFunc(maps.Values(p.last), netip.Addr.Compare),
		Taken: taken,
		Freed: maps.Clone(p.cooling),
	}
}

// restore brings back what an allocator before this one knew. The attachments' addresses are
// claimed afterwards. What was taken and isn't claimed then was freed by someone else at an unknown
// time, so it cools down from now.
func (p *allocator) restore(from cni.Ledger, now time.Duration) {
	for _, addr := range from.Last {
		p.last[addr.BitLen()] = addr
	}
	for _, addr := range slices.AppendSeq(slices.Clone(from.Taken), maps.Keys(from.Cooling)) {
		p.cooling[addr] = now
	}
	for addr, freed := range from.Freed {
		if freed < 0 || freed > now {
			freed = now // no time of this clock
		}
		p.cooling[addr] = freed
	}
}
