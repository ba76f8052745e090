package enforcer

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/sluice-net/sluice/ruleset"
)

// TestAllowedConnectionsLoseNothing: while policies get tighter and looser round them, and
// connections of the same pods are cut and restored, those that stay allowed lose no packet: each
// message waits for the last one's answer, and UDP sends nothing again.
func TestAllowedConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
	stays := append(w.openAll(7000, flowsOf{{"dev/web", "dev/db"}, {"dev/db", "out"}}...),
		w.openAll(7000, flowsOf{{"node", "dev/db"}}...)...)
	others := w.openAll(8000, flowsOf{{"prod/web", "dev/db"}, {"dev/web", "dev/db"}}...)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	counts := make([]int, len(stays))
	for i, c := range stays {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := pass(c.client, c.server, cutPatience); err != nil {
					t.Errorf("%s: message %d is lost: %v", c.what, counts[i], err)
					return
				}
				if err := pass(c.server, c.client, cutPatience); err != nil {
					t.Errorf("%s: answer %d is lost: %v", c.what, counts[i], err)
					return
				}
				counts[i]++
			}
		})
	}
	for round := range 12 {
		ports := "7000, endPort: 7999"
		if round%2 == 0 {
			ports = "7000, endPort: 8999"
		}
		w.policies(map[string]string{fmt.Sprintf("dev/p%d", round%3): fmt.Sprintf(
			`{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress], egress: [{}],
			ingress: [{from: [{podSelector: {}}], ports: [{port: %[1]s}, {protocol: UDP, port: %[1]s}]}]}`, ports)})
		w.relabel("dev/web", map[string]string{"app": "web", "round": fmt.Sprint(round)})
		if round == 5 {
			for _, c := range others[:4] {
				c.awaitCut()
			}
		}
	}
	sweeps := w.sweeps.Load()
	w.eventually("another look", func() bool { return w.sweeps.Load() > sweeps })
	cancel()
	all.Wait()
	for i, c := range stays {
		if counts[i] == 0 || c.isCut() {
			t.Errorf("%s: %d messages, cut %v", c.what, counts[i], c.isCut())
		}
	}
}
