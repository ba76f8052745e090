package table

import (
	"testing"

	"github.com/sluice-net/sluice/nft"
)

// TestRangesEnd: a range ends in the kernel where it is said to, also where no byte of its end is a
// character: without its end it would go on to the next range, or to the last address, and let in
// what is excepted.
func TestRangesEnd(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	want := nft.NewRuleset()
	for name, ranges := range map[string][][2]string{
		"private":  {{"192.168.0.0", "192.168.255.255"}},
		"metadata": {{"0.0.0.0", "169.254.169.253"}, {"169.254.169.255", "255.255.255.255"}},
		"nearly":   {{"128.0.0.0", "255.255.255.254"}},
	} {
		set := want.AddSet(&nft.Set{Name: name, Key: []nft.Field{nft.SrcAddr4}, Interval: true})
		for _, r := range ranges {
			set.Elements[nft.RangeElement(addr(r[0]), addr(r[1]))] = nft.Verdict{}
		}
	}
	mustSync(t, table, want)
	mustMatch(t, table)
	for _, outside := range [][2]string{{"private", "203.0.113.1"}, {"metadata", "169.254.169.254"},
		{"nearly", "255.255.255.255"}} {
		out, err := n.Try("", "get", "element", "inet", nft.TableName, outside[0],
			"{ "+outside[1]+" }")
		if err == nil {
			t.Errorf("%s is in set %s: %s", outside[1], outside[0], out)
		}
	}
}
