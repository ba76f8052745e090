package nft

import (
	"net/netip"
	"testing"
)

func TestIsLast(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"255.255.255.255": true, "255.255.255.254": false, "192.168.255.255": false, "169.254.169.253": false, "128.128.128.128": false, "0.0.0.0": false,
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": true, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe": false,
		"fe80:ffff:ffff:ffff:ffff:ffff:ffff:ffff": false, "10.255.255.255": false,
	} {
		if got := isLast(string(netip.MustParseAddr(text).AsSlice())); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestRangesEnd: a range ends in the kernel where it is said to, also where no byte of its end is a character: without its end it would
// go on to the next range, or to the last address, and let in what is excepted.
func TestRangesEnd(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	want := NewRuleset()
	for name, ranges := range map[string][][2]string{
		"private":  {{"192.168.0.0", "192.168.255.255"}},
		"metadata": {{"0.0.0.0", "169.254.169.253"}, {"169.254.169.255", "255.255.255.255"}},
		"nearly":   {{"128.0.0.0", "255.255.255.254"}},
	} {
		set := want.AddSet(&Set{Name: name, Key: []Field{SrcAddr4}, Interval: true})
		for _, r := range ranges {
			set.Elements[RangeElement(addr(r[0]), addr(r[1]))] = Verdict{}
		}
	}
	mustSync(t, table, want)
	mustMatch(t, table)
	for _, outside := range [][2]string{{"private", "203.0.113.1"}, {"metadata", "169.254.169.254"}, {"nearly", "255.255.255.255"}} {
		if out, err := n.try("", "get", "element", "inet", TableName, outside[0], "{ "+outside[1]+" }"); err == nil {
			t.Errorf("%s is in set %s: %s", outside[1], outside[0], out)
		}
	}
}
