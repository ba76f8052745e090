package plugin

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/test/cnitest"
)

// pluginStatus asks the plugin as a runtime does.
func (a *testAgent) pluginStatus() error { return a.Status(New().Status) }

// becomesReady waits until STATUS succeeds.
func (a *testAgent) becomesReady() {
	a.T.Helper()
	cnitest.Eventually(a.T, "STATUS to succeed", func() bool { return a.pluginStatus() == nil })
}

// TestStatusFails: for each of the causes that there are.
func TestStatusFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(a *testAgent)
		says string
	}{
		"no agent since the boot": {func(a *testAgent) {
			a.Stop()
			if err := os.Remove(cni.HeartbeatPath(a.StateDir)); err != nil {
				a.T.Fatal(err)
			}
		}, "hasn't run since the boot"},
		"agent of before the reboot": {func(a *testAgent) {
			a.Stop()
			if err := cni.OpenRecords(a.StateDir).
				WriteHeartbeat(cni.Heartbeat{BootID: "another", Ready: true,
					Beat: 1 << 60}); err != nil {
				a.T.Fatal(err)
			}
		}, "hasn't run since the boot"},
		"only just started": {func(*testAgent) {}, "the agent has only just started"},
		"no overlay": {func(a *testAgent) {
			a.server.SetDatapathReady(false, "waiting for the tunnel")
		}, "waiting for the tunnel"},
		"no podCIDR": {func(a *testAgent) { a.server.SetDatapathReady(true, "") },
			"the node has no podCIDR yet"},
		"podCIDR, but no rule": {func(a *testAgent) {
			a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/24"))
		}, "the agent has only just started"},
		"silent": {func(a *testAgent) {
			a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/24"))
			a.server.SetDatapathReady(true, "")
			a.becomesReady()
			a.Stop()
			a.Age(cni.MaxSilence + 2*time.Second)
		}, "the node's agent has been silent for "},
		"what can't be read": {func(a *testAgent) {
			a.Stop()
			if err := os.WriteFile(cni.HeartbeatPath(a.StateDir), []byte("{"), 0o600); err != nil {
				a.T.Fatal(err)
			}
		}, "reading the agent's heartbeat"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newBareAgent(t)
			c.make(a)
			cnitest.Eventually(t, "STATUS to say "+c.says, func() bool {
				err := a.pluginStatus()
				return err != nil && strings.Contains(err.Error(), c.says)
			})
			cnitest.MustFail(t, a.pluginStatus(), cni.CodeNotAvailable, c.says)
			a.Stop()
			a.Start()
			a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/24"))
			a.server.SetDatapathReady(true, "")
			a.becomesReady()
		})
	}
}

// TestStatusHolds: other troubles are no reason to take the node out of service.
func TestStatusHolds(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(a *testAgent){
		"nothing": func(*testAgent) {},
		"a full pool": func(a *testAgent) {
			a.server.SetPodCIDRs(cnitest.Prefixes("10.2.0.0/30"))
			a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
			a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
			if _, err := a.Add(cnitest.RequestFor("c3", "pod-c")); err == nil {
				a.T.Error("the pool isn't full")
			}
		},
		"a degraded tunnel": func(a *testAgent) {
			a.server.SetDatapathReady(false, "the tunnel is gone")
			_, err := a.Add(cnitest.RequestFor("c1", "pod-a"))
			cnitest.MustFail(a.T, err, types.ErrTryAgainLater,
				"the node's network isn't ready; the tunnel is gone")
		},
		"no podCIDR any more":  func(a *testAgent) { a.server.SetPodCIDRs(nil) },
		"a stopped agent":      func(a *testAgent) { a.Stop() },
		"silent for a while":   func(a *testAgent) { a.Stop(); a.Age(cni.MaxSilence / 2) },
		"an agent that starts": func(a *testAgent) { a.Stop(); a.IsBare = true; a.Start() },
		"no socket": func(a *testAgent) {
			if err := os.Remove(a.Socket); err != nil {
				a.T.Fatal(err)
			}
		},
		"a policy that fails": func(a *testAgent) {
			a.Enforcer.SetDetach(func(string) error { return errors.New("kernel says no") })
			a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
			a.MustDel(cnitest.RequestFor("c1", "pod-a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t)
			a.becomesReady()
			spoil(a)
			if err := a.pluginStatus(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNewAgentIsSilentToo: one that starts doesn't hide for how long the last one was silent, if it
// never gets to run.
func TestNewAgentIsSilentToo(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.becomesReady()
	a.Stop()
	a.Age(cni.MaxSilence + time.Second)
	cnitest.MustFail(t, a.pluginStatus(), cni.CodeNotAvailable, "silent")
	a.Start()
	if err := a.pluginStatus(); err != nil {
		t.Errorf("once it runs: %v", err)
	}
}

// TestPolicyOnlyNeedsNoPodCIDR: there the pods' addresses are another plugin's.
func TestPolicyOnlyNeedsNoPodCIDR(t *testing.T) {
	t.Parallel()
	a := newBareAgent(t, func(o *server.Options) { o.PolicyOnly = true })
	a.server.SetDatapathReady(true, "")
	a.becomesReady()
	_, err := a.Add(cnitest.RequestFor("c1", "pod-a"))
	cnitest.MustFail(t, err, types.ErrInvalidNetworkConfig, "enforces policy only",
		`"mode":"policy"`)
}
