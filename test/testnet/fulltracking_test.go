package testnet

import "testing"

func TestFullTracking(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
	b.ServeTCP(openPort)
	n.Nft("add table inet test; add chain inet test f { type filter hook forward priority 0; ct " +
		"state new accept; }")
	open := a.Open(t, TCP, at(addrsB[0], openPort))
	made := 0
	fill := func() {
		t.Helper()
		if err := n.Do(func() (err error) {
			made, err = FillTracking(made)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	fill()
	a.MustNotReach(t, TCP, at(addrsB[0], openPort))
	if err := open.Echo(); err != nil {
		t.Errorf("an open connection: %v", err)
	}
	if err := n.Do(EmptyTracking); err != nil {
		t.Fatal(err)
	}
	a.MustReach(t, TCP, at(addrsB[0], openPort))
}
