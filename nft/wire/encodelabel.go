package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"

	"github.com/sluice-net/sluice/nft"
)

// labelBits is the length of a label.
const labelBits = 128

// labelBit is a label with one bit. The kernel's numbers in it are as long as a machine word.
func labelBit(bit uint8) ([]byte, error) {
	const word = 64
	if bit >= labelBits {
		return nil, fmt.Errorf("a connection's label has no bit %d", bit)
	}
	label := make([]byte, labelBits/8)
	binary.NativeEndian.PutUint64(label[bit/word*8:], 1<<(bit%word))
	return label, nil
}

func (e *encoder) matchCTLabel(m nft.MatchCTLabel) error {
	mask, err := labelBit(m.Bit)
	if err != nil {
		return err
	}
	zero := make([]byte, len(mask))
	e.add(
		&expr.Ct{Key: expr.CtKeyLABELS, Register: register1},
		&expr.Bitwise{SourceRegister: register1, DestRegister: register1, Len: uint32(len(mask)),
			Mask: mask, Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register1, Data: zero},
	)
	return nil
}

func (e *encoder) setCTLabel(s nft.SetCTLabel) error {
	label, err := labelBit(s.Bit)
	if err != nil {
		return err
	}
	e.add(&expr.Immediate{Register: register1, Data: label},
		&expr.Ct{Key: expr.CtKeyLABELS, Register: register1, SourceRegister: true})
	return nil
}
