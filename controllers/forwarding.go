package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"go4.org/netipx"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/nft/others"
)

// ForwardingCheck finds out whether the packets that the node forwards for pods get through, and
// pass our ruleset: others' tables can drop them, and bridges can lead them past our table. It
// reports in the log, by Events and by metrics.
type ForwardingCheck struct {
	PolicyOnly bool // other plugins wire the pods
	Accept     bool // keep a rule in others' chains that accepts the pod network
	SysctlDir  string
	// Taken lists the addresses of pods; a trial doesn't use these.
	Taken   func() []netip.Addr
	Events  notify.NodeEvents
	Metrics *Metrics // may be nil
	Log     logr.Logger

	mu       sync.Mutex
	networks []netip.Prefix // of all pods
	podCIDRs []netip.Prefix // of this node's pods

	// Of the one goroutine that calls Look.
	accepter others.Accepter
	looked   bool
	blockers []others.Blocker
	switches others.Switches
	tried    []netip.Prefix // the podCIDRs of the last trial
	reported map[string]string
}

// SetPods sets where pods are: in the cluster, and on this node.
func (f *ForwardingCheck) SetPods(networks, podCIDRs []netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.networks, f.podCIDRs = networks, podCIDRs
}

// look looks once, and reports what has changed since the last time. It must not be called twice at
// once.
func (f *ForwardingCheck) look(ctx context.Context) {
	f.mu.Lock()
	networks, podCIDRs := slices.Clone(f.networks), slices.Clone(f.podCIDRs)
	f.mu.Unlock()
	if f.PolicyOnly {
		f.lookAtBridges(podCIDRs)
		return
	}
	changed := !f.looked || !slices.Equal(f.tried, podCIDRs)
	if f.Accept {
		accepted, err := f.accepter.Ensure(ctx, networks)
		changed = changed || accepted
		f.note("Others' chains can't be made to accept the pod network", err)
	} else if !f.looked {
		f.note("A rule in others' chains can't be removed", f.accepter.Remove(ctx))
	}
	blockers, err := others.Blockers(others.Forward)
	f.note("Others' chains can't be read", err)
	switches, err := others.ReadSwitches(f.SysctlDir)
	f.note("The node's sysctls can't be read", err)
	if changed || !slices.Equal(blockers, f.blockers) || switches != f.switches {
		f.blockers, f.switches = blockers, switches
		f.try(ctx, podCIDRs)
	}
	f.looked, f.tried = true, podCIDRs
}

// try sends packets through the node as if between pods.
func (f *ForwardingCheck) try(ctx context.Context, podCIDRs []netip.Prefix) {
	f.Metrics.noteBlockers(f.blockers)
	options := others.TrialOptions{SysctlDir: f.SysctlDir}
	for _, p := range podCIDRs {
		path, err := trialPath(p, f.Taken())
		switch {
		case err != nil:
			f.note("Forwarding can't be tried", err)
		case p.Addr().Is4():
			options.IPv4 = path
		default:
			options.IPv6 = path
		}
	}
	if options.IPv4 == (others.Path{}) && options.IPv6 == (others.Path{}) {
		return
	}
	result, err := others.TryForwarding(ctx, options)
	f.note("Forwarding can't be tried", err)
	if err != nil {
		return
	}
	f.Metrics.noteForwarding(result)
	f.report("ForwardingBlocked", result.Explain(f.blockers))
}

// trialPath picks two addresses of a range that no pod has: the last ones, which pods get last.
func trialPath(p netip.Prefix, taken []netip.Addr) (others.Path, error) {
	const most = 16 // addresses to look at
	var free []netip.Addr
	for addr, n := netipx.PrefixLastIP(p),
		0; n < most && p.Contains(addr) && addr != p.Masked().Addr(); addr,
		n = addr.Prev(), n+1 {
		if !slices.Contains(taken, addr) {
			free = append(free, addr)
		}
		if len(free) == 2 {
			return others.Path{Source: free[1], Destination: free[0]}, nil
		}
	}
	return others.Path{}, fmt.Errorf("no two of the last addresses of %s are free", p)
}

// lookAtBridges looks for pods that talk past our ruleset.
func (f *ForwardingCheck) lookAtBridges(podCIDRs []netip.Prefix) {
	bypasses, err := others.BridgesBypass(podCIDRs, f.SysctlDir)
	f.note("Bridges can't be looked at", err)
	var texts []string
	for _, b := range bypasses {
		texts = append(texts, b.String())
	}
	f.Metrics.noteBypasses(len(bypasses))
	f.report("PolicyBypassed", strings.Join(texts, "; "))
}

// note logs an error when it begins.
func (f *ForwardingCheck) note(what string, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		delete(f.reported, what)
		return
	}
	if f.isNews(what, err.Error()) {
		f.Log.Error(err, what)
	}
}

// report reports a finding when it begins, and when it has ended.
func (f *ForwardingCheck) report(reason, text string) {
	if text == "" {
		if _, was := f.reported[reason]; was {
			f.Log.Info("What was found about forwarded traffic is over", "reason", reason)
			delete(f.reported, reason)
		}
		return
	}
	if !f.isNews(reason, text) {
		return
	}
	f.Log.Info("Forwarded traffic of pods is in danger", "reason", reason, "what", text)
	f.Events.Warn(reason, text)
}

func (f *ForwardingCheck) isNews(key, text string) bool {
	if f.reported == nil {
		f.reported = map[string]string{}
	}
	news := f.reported[key] != text
	f.reported[key] = text
	return news
}
