package cni

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Ledger is what an allocator remembers over a restart, and nearly nothing of it over a reboot. The
// times in it are of the clock that nobody sets: with the node's wall clock, setting that would end
// an address's rest early, or make it rest for hours.
//
// An agent of before Freed finds the addresses in Taken, without their attachments, and lets them
// cool down once more.
type Ledger struct {
	BootID string                       `json:"bootID,omitempty"`
	Last   []netip.Addr                 `json:"last"`
	Taken  []netip.Addr                 `json:"taken"` // also those that cool down
	Freed  map[netip.Addr]time.Duration `json:"freed"` // when, since the boot

	// Cooling is in ledgers of before Freed, with times of the wall clock, which say nothing.
	Cooling map[netip.Addr]json.RawMessage `json:"cooling,omitempty"`
}

// ofUnknownTime is the same ledger with times that count no more: what is in it cools down from
// when it is restored.
func (l Ledger) ofUnknownTime() Ledger {
	l.Freed = nil
	return l
}
