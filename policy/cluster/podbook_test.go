package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// However many pods come and go, there are no more numbers than pods at one time.
func TestNumbersAreReused(t *testing.T) {
	t.Parallel()
	const atOnce, all = 10, 1000
	c := New(Options{Node: "n1"})
	c.SetNode(policy.Node{Name: "n2", PodCIDRs: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}})
	id := func(i int) selector.Pod {
		uid := fmt.Sprint(i) // such a pod is kept whole
		if i%4 > 0 {
			uid = uuid.NewSHA1(uuid.Nil, []byte(uid)).String()
		}
		return selector.Pod{Namespace: "dev", Name: fmt.Sprint(i), UID: uid}
	}
	for i := range all {
		c.SetPod(policy.Pod{ID: id(i), Node: "n2",
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 7)}),
				netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i % 100)})},
			Labels: selector.LabelSetOf(map[string]string{"app": fmt.Sprint(i % 3)})})
		if i%3 == 0 { // attached here, and for a while without an object
			c.SetEndpoint(policy.Endpoint{ID: fmt.Sprint(i), Pod: id(i),
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, 1})}})
		}
		if i >= atOnce-1 {
			c.DeletePod("dev", fmt.Sprint(i-atOnce+1))
			c.DeleteEndpoint(fmt.Sprint(i - atOnce + 1))
		}
	}
	if n := c.pods.records.size; n > atOnce {
		t.Errorf("%d numbers for %d pods", n, atOnce)
	}
	for i := range all {
		c.DeletePod("dev", fmt.Sprint(i))
		c.DeleteEndpoint(fmt.Sprint(i))
	}
	if b := c.pods; len(b.free) != b.records.size || b.current.size()+len(b.records.whole)+
		len(b.former)+b.labels.size()+len(b.byNode) > 0 {
		t.Errorf("left in an empty book: %d numbers, of which %d are free; %v, %v, %v, %v, %v",
			b.records.size, len(b.free), b.current.slots, b.records.whole, b.former, b.labels.sets,
			b.byNode)
	}
	if b := c.pods.claims; b.one4.size()+b.one6.size()+len(b.more) > 0 {
		t.Errorf("left in an empty book: claims of %v", slices.Collect(b.addresses()))
	}
	for i, block := range c.pods.records.blocks {
		if block != nil {
			t.Errorf("left in an empty book: block %d", i)
		}
	}
}
