package cni

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Ledger is what an allocator remembers over a restart; over a reboot, nearly nothing of it. Its
// times are of a clock that can't be set: a change of the wall clock could end an address's rest
// early, or make it last for hours.
//
// An agent of a version without Freed finds the addresses in Taken, without attachments, and lets
// them cool down once more.
type Ledger struct {
	BootID string                       `json:"bootID,omitempty"`
	Last   []netip.Addr                 `json:"last"`
	Taken  []netip.Addr                 `json:"taken"` // also those that cool down
	Freed  map[netip.Addr]time.Duration `json:"freed"` // when, since the boot

	// Cooling is in ledgers of versions without Freed, with times of the wall clock, which say
	// nothing.
	Cooling map[netip.Addr]json.RawMessage `json:"cooling,omitempty"`
}

// ofUnknownTime is the same ledger without its times: its addresses cool down from when it is
// restored.
func (l Ledger) ofUnknownTime() Ledger {
	l.Freed = nil
	return l
}
