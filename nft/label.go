package nft

import (
	"fmt"
)

// MatchCTLabel matches packets of connections whose label has the bit, 0 to 127.
type MatchCTLabel struct{ Bit uint8 }

// SetCTLabel gives the packet's connection a label of this bit alone. In a table with such a rule,
// even one that no packet meets, the kernel gives later connections room for a label. Newer kernels
// do so for MatchCTLabel, too.
type SetCTLabel struct{ Bit uint8 }

func (m MatchCTLabel) String() string { return fmt.Sprintf("ct label %d", m.Bit) }
func (s SetCTLabel) String() string   { return fmt.Sprintf("ct label set %d", s.Bit) }
