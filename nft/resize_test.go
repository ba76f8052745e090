package nft

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListsWhileTheKernelResizes: what is read of a large set right after a change is what is in it. Some time after a change that makes it much
// larger or smaller the kernel resizes its hash table, and a list that was begun before goes on at another place.
func TestListsWhileTheKernelResizes(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	const size, stay = 6000, 100
	all, come, leave := map[Element]Verdict{}, map[Element]Verdict{}, map[Element]struct{}{}
	for i := range uint16(size) {
		e, target := AddrProtoPortElement(natNode[1], unix.IPPROTO_TCP, i+1), NATTarget(netip.AddrPortFrom(natPods[1], i+1))
		all[e] = target
		if i >= stay {
			come[e], leave[e] = target, struct{}{}
		}
	}
	r := NewRuleset()
	r.AddSet(&Set{Name: "ports", Key: []Field{DstAddr6, L4Proto, DstPort}, Targets: DstAddr6, Elements: all})
	mustSync(t, table, r)
	for range 15 {
		for _, p := range []*SetPatch{{Remove: leave}, {Put: come}} {
			mustApply(t, table, Patch{Sets: map[string]*SetPatch{"ports": p}})
			for range 2 {
				mustMatch(t, table)
			}
		}
	}
}
