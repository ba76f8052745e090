package cluster

import (
	"fmt"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// However many pods come and go, there are no more numbers than pods at one time.
func TestNumbersAreReused(t *testing.T) {
	t.Parallel()
	const atOnce, all = 10, 1000
	c := New(Options{Node: "n1"})
	id := func(i int) selector.Pod {
		return selector.Pod{Namespace: "dev", Name: fmt.Sprint(i), UID: fmt.Sprint(i)}
	}
	for i := range all {
		c.SetPod(policy.Pod{ID: id(i), Node: "n2",
			Labels: selector.LabelSetOf(map[string]string{"app": fmt.Sprint(i % 3)})})
		if i%3 == 0 { // attached here, and for a while without an object
			c.SetEndpoint(policy.Endpoint{ID: fmt.Sprint(i), Pod: id(i)})
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
	for i, block := range c.pods.records.blocks {
		if block != nil {
			t.Errorf("left in an empty book: block %d", i)
		}
	}
}
