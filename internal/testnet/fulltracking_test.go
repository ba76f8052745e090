package testnet

import "testing"

func TestFullTracking(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
	b.ServeTCP(openPort)
	n.Nft("add table inet test; add chain inet test f { type filter hook forward priority 0; ct state new accept; }")
	open := a.Open(t, TCP, at(addrsB[0], openPort))
	fill := func(want func() (int, error)) {
		t.Helper()
		if err := n.Do(func() error {
			count, err := want()
			t.Logf("%d connections", count)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	fill(FillTracking)
	a.MustNotReach(t, TCP, at(addrsB[0], openPort))
	if err := open.Echo(); err != nil {
		t.Errorf("an open connection: %v", err)
	}
	fill(func() (int, error) { return 0, EmptyTracking() })
	a.MustReach(t, TCP, at(addrsB[0], openPort))
}
