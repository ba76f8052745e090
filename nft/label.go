package nft

import (
	"fmt"
)

// MatchCTLabel matches packets of connections whose label has the bit, 0 to 127.
type MatchCTLabel struct{ Bit uint8 }

// SetCTLabel gives the packet's connection a label of this bit alone. A table with such a rule,
// whether or not a packet ever meets it, makes the kernel give connections that begin from then on
// room for a label; kernels of today do so for MatchCTLabel, too.
type SetCTLabel struct{ Bit uint8 }

func (m MatchCTLabel) String() string { return fmt.Sprintf("ct label %d", m.Bit) }
func (s SetCTLabel) String() string   { return fmt.Sprintf("ct label set %d", s.Bit) }
