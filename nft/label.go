package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
)

// MatchCTLabel matches packets of connections whose label has the bit, 0 to 127. A rule with it makes the kernel give connections that
// begin from then on room for a label.
type MatchCTLabel struct{ Bit uint8 }

func (m MatchCTLabel) encode(e *encoder) error {
	const bits, word = 128, 64 // the kernel's numbers are as long as a machine word
	if m.Bit >= bits {
		return fmt.Errorf("a connection's label has no bit %d", m.Bit)
	}
	mask, zero := make([]byte, bits/8), make([]byte, bits/8)
	binary.NativeEndian.PutUint64(mask[m.Bit/word*8:], 1<<(m.Bit%word))
	e.add(
		&expr.Ct{Key: expr.CtKeyLABELS, Register: register1},
		&expr.Bitwise{SourceRegister: register1, DestRegister: register1, Len: bits / 8, Mask: mask, Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register1, Data: zero},
	)
	return nil
}

func (m MatchCTLabel) String() string { return fmt.Sprintf("ct label %d", m.Bit) }
