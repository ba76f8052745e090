package enforce

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestConnectionTrackingFull: no new connection, and nothing that is denied; what is tracked goes
// on, except what policy comes to deny; and it is reported.
func TestConnectionTrackingFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newLab(t, labName(t, "full"), lab.Options{Nodes: 2}), apart)
	w.policiesUnderFault()
	node := w.Node("node1")
	stopFlow := w.watchFlow("prod/web", "ops/probe", probe.TCP)
	cut, err := w.OpenFlow("dev/web", probe.TCP,
		addrPort(w.addr("dev/db", "dev/web", 4), watchedPort))
	w.must(err)
	defer cut.Close()
	w.must(cut.Echo())
	empty := w.keepTrackingFull(node)
	defer empty()
	w.denied(append(slices.Clone(stillDenied), "dev/web > dev/db tcp/80")...)
	w.eventually("the Event", func() bool { return w.hasEvent(node, "ConntrackFull") })
	w.must(cut.Echo())
	w.setPolicies(map[string]string{
		"dev/db": `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}`})
	w.eventually("the connection's end", func() bool { return cut.Echo() != nil })
	stopFlow()
	empty()
	w.eventually("the end to be reported", func() bool {
		return w.hasEvent(node, "ConntrackHasRoom")
	})

	node.KillAgent()
	empty = w.keepTrackingFull(node)
	defer empty()
	w.must(node.StartAgent())
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
	defer cancel()
	if err := node.WaitAgentReady(ctx); err == nil {
		w.t.Error("an agent is ready without a connection to the API server")
	}
	w.denied(stillDenied...)
	empty()
	w.must(node.WaitAgentReady(w.t.Context()))
	w.allowed("prod/web > ops/probe tcp/80")
	w.deletePolicies("dev/db", "dev/web")
	w.allowed(stillDenied...)
}

// keepTrackingFull fills a node's connection tracking, and takes up what room others leave, until
// empty is called.
func (w *world) keepTrackingFull(node *lab.Node) (empty func()) {
	w.t.Helper()
	made := 0
	fill := func() error {
		return node.Do(func() (err error) { made, err = testnet.FillTracking(made); return err })
	}
	w.must(fill())
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				ended <- nil
				return
			case <-tick.C:
			}
			if err := fill(); err != nil {
				ended <- err
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		cancel()
		w.must(errors.Join(<-ended, node.Do(testnet.EmptyTracking)))
	})
}
