package table

import (
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/stretch"
)

// TestListsWhileTheKernelResizes: what is read of a large set is what is in it. Some time after a
// change that makes it much larger or smaller the kernel resizes its hash table, and a list that
// was begun before goes on at another place.
func TestListsWhileTheKernelResizes(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	const size, stay = 6000, 100
	changes := stretch.Fewer(60)
	all, come, leave := map[nft.Element]nft.Verdict{}, map[nft.Element]nft.Verdict{},
		map[nft.Element]struct{}{}
	for i := range uint16(size) {
		e, target := nft.AddrProtoPortElement(natNode[1], unix.IPPROTO_TCP, i+1),
			nft.NATTarget(netip.AddrPortFrom(natPods[1], i+1))
		all[e] = target
		if i >= stay {
			come[e], leave[e] = target, struct{}{}
		}
	}
	r := nft.NewRuleset()
	set := r.AddSet(&nft.Set{Name: "ports",
		Key: []nft.Field{nft.DstAddr6, nft.L4Proto, nft.DstPort}, Targets: nft.DstAddr6,
		Elements: all})
	mustSync(t, table, r)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		reader := n.open(Options{})
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got, err := reader.conn.ReadElements(set)
				// an error: it changed whenever it was read
				if err == nil && len(got) != size && len(got) != stay {
					t.Errorf("%d elements are read, want %d or %d", len(got), size, stay)
					return
				}
			}
		})
	}
	for i := range changes {
		p := &nft.SetPatch{Put: come}
		if i%2 == 0 {
			p = &nft.SetPatch{Remove: leave}
		}
		mustApply(t, table, nft.Patch{Sets: map[string]*nft.SetPatch{"ports": p}})
	}
	close(done)
	readers.Wait()
	mustMatch(t, table)
}
