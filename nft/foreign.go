package nft

// Foreign is a part of a rule found in the kernel that isn't one of ours: its expression in
// canonical text, and what it refers to. It can't be written.
type Foreign struct {
	Text string
	Ref  Ref
}

func (f Foreign) String() string { return f.Text }
