package enforcer

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
)

// TestCutBitMayBeAskedAtAnyTime: without the Enforcer's lock, while what the ruleset knows of the
// network changes. The race detector would say so.
func TestCutBitMayBeAskedAtAnyTime(t *testing.T) {
	t.Parallel()
	m := NewModel(cluster.Options{Node: "n1"}, ruleset.Config{CutLabel: 5})
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := range byte(100) {
			m.setNetwork(ruleset.Network{Local: netip.AddrFrom4([4]byte{192, 0, 2, i})})
		}
	})
	for range 100 {
		if got := m.cutBit(); got != 5 {
			t.Errorf("got %d", got)
		}
	}
	changing.Wait()
}
