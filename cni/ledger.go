package cni

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ledger is what an allocator remembers over a restart, and nearly nothing of it over a reboot. The times in it are of the clock that
// nobody sets: with the node's wall clock, setting that would end an address's rest early, or make it rest for hours.
//
// An agent of before Freed finds the addresses in Taken, without their attachments, and lets them cool down once more.
type ledger struct {
	BootID string                       `json:"bootID,omitempty"`
	Last   []netip.Addr                 `json:"last"`
	Taken  []netip.Addr                 `json:"taken"` // also those that cool down
	Freed  map[netip.Addr]time.Duration `json:"freed"` // when, since the boot

	// Cooling is in ledgers of before Freed, with times of the wall clock, which say nothing.
	Cooling map[netip.Addr]json.RawMessage `json:"cooling,omitempty"`
}

func (p *allocator) ledger() ledger {
	taken := slices.AppendSeq(slices.Collect(maps.Keys(p.taken)), maps.Keys(p.cooling))
	slices.SortFunc(taken, netip.Addr.Compare)
	return ledger{
		Last:  slices.SortedFunc(maps.Values(p.last), netip.Addr.Compare),
		Taken: taken,
		Freed: maps.Clone(p.cooling),
	}
}

// ofUnknownTime is the same ledger with times that count no more: what is in it cools down from when it is restored.
func (l ledger) ofUnknownTime() ledger {
	l.Freed = nil
	return l
}

// restore brings back what an allocator before this one knew. The attachments' addresses are claimed afterwards. What was taken and
// isn't claimed then was freed by someone else at an unknown time, so it cools down from now.
func (p *allocator) restore(from ledger, now time.Duration) {
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
