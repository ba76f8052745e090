package cni

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// TestStatusFails: for each of the causes that there are.
func TestStatusFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(a *testAgent)
		says string
	}{
		"no agent since the boot": {func(a *testAgent) {
			a.stop()
			if err := os.Remove(heartbeatPath(a.stateDir)); err != nil {
				a.t.Fatal(err)
			}
		}, "hasn't run since the boot"},
		"agent of before the reboot": {func(a *testAgent) {
			a.stop()
			if err := writeJSON(heartbeatPath(a.stateDir), heartbeat{BootID: "another", Ready: true, Beat: 1 << 60}); err != nil {
				a.t.Fatal(err)
			}
		}, "hasn't run since the boot"},
		"only just started":    {func(*testAgent) {}, "the agent has only just started"},
		"no overlay":           {func(a *testAgent) { a.server.SetDatapathReady(false, "waiting for the tunnel") }, "waiting for the tunnel"},
		"no podCIDR":           {func(a *testAgent) { a.server.SetDatapathReady(true, "") }, "the node has no podCIDR yet"},
		"podCIDR, but no rule": {func(a *testAgent) { a.server.SetPodCIDRs(prefixes("10.1.0.0/24")) }, "the agent has only just started"},
		"silent": {func(a *testAgent) {
			a.server.SetPodCIDRs(prefixes("10.1.0.0/24"))
			a.server.SetDatapathReady(true, "")
			a.becomesReady()
			a.stop()
			a.age(maxSilence + 2*time.Second)
		}, "the node's agent has been silent for "},
		"what can't be read": {func(a *testAgent) {
			a.stop()
			if err := os.WriteFile(heartbeatPath(a.stateDir), []byte("{"), 0o600); err != nil {
				a.t.Fatal(err)
			}
		}, "reading the agent's heartbeat"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newBareAgent(t)
			c.make(a)
			eventually(t, "STATUS to say "+c.says, func() bool {
				err := a.pluginStatus()
				return err != nil && strings.Contains(err.Error(), c.says)
			})
			mustFail(t, a.pluginStatus(), codeNotAvailable, c.says)
			a.stop()
			a.start()
			a.server.SetPodCIDRs(prefixes("10.1.0.0/24"))
			a.server.SetDatapathReady(true, "")
			a.becomesReady()
		})
	}
}

// TestStatusHolds: whatever else is wrong is no reason to take the node out of service.
func TestStatusHolds(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(a *testAgent){
		"nothing": func(*testAgent) {},
		"a full pool": func(a *testAgent) {
			a.server.SetPodCIDRs(prefixes("10.2.0.0/30"))
			a.mustAdd(requestFor("c1", "pod-a"))
			a.mustAdd(requestFor("c2", "pod-b"))
			if _, err := a.add(requestFor("c3", "pod-c")); err == nil {
				a.t.Error("the pool isn't full")
			}
		},
		"a degraded tunnel": func(a *testAgent) {
			a.server.SetDatapathReady(false, "the tunnel is gone")
			_, err := a.add(requestFor("c1", "pod-a"))
			mustFail(a.t, err, types.ErrTryAgainLater, "the node's network isn't ready; the tunnel is gone")
		},
		"no podCIDR any more":  func(a *testAgent) { a.server.SetPodCIDRs(nil) },
		"a stopped agent":      func(a *testAgent) { a.stop() },
		"silent for a while":   func(a *testAgent) { a.stop(); a.age(maxSilence / 2) },
		"an agent that starts": func(a *testAgent) { a.stop(); a.isBare = true; a.start() },
		"no socket": func(a *testAgent) {
			if err := os.Remove(a.socket); err != nil {
				a.t.Fatal(err)
			}
		},
		"a policy that fails": func(a *testAgent) {
			a.enforcer.setDetach(func(string) error { return errors.New("kernel says no") })
			a.mustAdd(requestFor("c1", "pod-a"))
			a.mustDel(requestFor("c1", "pod-a"))
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

// TestNewAgentIsSilentToo: one that starts doesn't hide for how long the last one was silent, if it never gets to run.
func TestNewAgentIsSilentToo(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.becomesReady()
	a.stop()
	a.age(maxSilence + time.Second)
	mustFail(t, a.pluginStatus(), codeNotAvailable, "silent")
	a.start()
	if err := a.pluginStatus(); err != nil {
		t.Errorf("once it runs: %v", err)
	}
}

// TestPolicyOnlyNeedsNoPodCIDR: there the pods' addresses are another plugin's.
func TestPolicyOnlyNeedsNoPodCIDR(t *testing.T) {
	t.Parallel()
	a := newBareAgent(t, func(o *ServerOptions) { o.PolicyOnly = true })
	a.server.SetDatapathReady(true, "")
	a.becomesReady()
	_, err := a.add(requestFor("c1", "pod-a"))
	mustFail(t, err, types.ErrInvalidNetworkConfig, "enforces policy only", `"mode":"policy"`)
}
