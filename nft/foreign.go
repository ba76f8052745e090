package nft

import "errors"

// foreign is a rule found in the kernel that isn't one of ours: its
// expressions in canonical text, and what it refers to. It can't be written.
type foreign struct {
	text string
	ref  ref
}

func (f foreign) String() string { return f.text }

func (f foreign) encode(*encoder) error {
	return errors.New("a rule that was found in the kernel can't be written back")
}
