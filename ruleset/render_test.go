package ruleset_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/randomcluster"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// TestPatchesAddUpToTheRuleset: for any events, rendered at any moments, the patches lead to what
// rendering from scratch gives.
func TestPatchesAddUpToTheRuleset(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := ruleset.Config{AllowPodToNode: rapid.Bool().Draw(t, "podToNode"),
			IPVS: rapid.Bool().Draw(t, "ipvs")}
		world := randomcluster.Options(t)
		c, w := cluster.New(world), randomcluster.NewWorld(world)
		if rapid.Bool().Draw(t, "network") { // it never comes or goes while pods are there
			cfg.Network = ruleworld.DrawNetwork(t)
		}
		r := ruleset.NewRenderer(cfg)
		have := r.Ruleset(c)
		ports := map[string][]ruleset.HostPort{"e1": {
			{HostPort: 80, ContainerPort: 8080, Protocol: policy.ProtocolTCP}}}
		r.SetHostPorts("e1", ports["e1"])
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			w.Event(t, c)
			if cfg.Network.Enabled() && rapid.Bool().Draw(t, "changed") {
				cfg.Network = ruleworld.DrawNetwork(t)
				r.SetNetwork(cfg.Network, cfg.PodRanges)
			}
			if rapid.IntRange(0, 7).Draw(t, "ipvs comes or goes") == 0 {
				cfg.IPVS = !cfg.IPVS
				r.SetIPVS(cfg.IPVS)
			}
			if rapid.IntRange(0, 3).Draw(t, "render") == 0 {
				have.Merge(r.Patch(c, c.Take()))
			}
		}
		have.Merge(r.Patch(c, c.Take()))

		scratch := w.Build()
		scratch.Take()
		fresh := ruleset.NewRenderer(cfg)
		fresh.SetHostPorts("e1", ports["e1"])
		want := fresh.Ruleset(scratch)
		opts := cmp.Options{cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
			cmp.Comparer(nft.Rule.Equal), cmp.AllowUnexported(nft.Base{})}
		if diff := cmp.Diff(want, have, opts); diff != "" {
			t.Fatalf("patches differ from scratch (-scratch +patches):\n%s", diff)
		}
	})
}

// TestRulesetDoesWhatPoliciesMean: an interpreter of the typed ruleset, which knows nothing of
// policies, agrees with the evaluator on every flow between the addresses and ports at which
// anything could change.
func TestRulesetDoesWhatPoliciesMean(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		opts.AllowPodToNode = rapid.Bool().Draw(t, "podToNode")
		c, w := cluster.New(opts), randomcluster.NewWorld(opts)
		for range rapid.IntRange(5, 60).Draw(t, "events") {
			w.Event(t, c)
		}
		c.Take()
		cfg := ruleset.Config{
			AllowPodToNode: opts.AllowPodToNode,
			PodRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25"),
				netip.MustParsePrefix("fd00::/126")},
		}
		rs := ruleset.NewRenderer(cfg).Ruleset(c)
		where := attachments(c)
		ends := append(slices.Clone(randomcluster.Addresses), randomcluster.Strangers...)
		for _, src := range ends {
			for _, dst := range ends {
				if src.Is4() != dst.Is4() {
					continue
				}
				for _, protocol := range []uint8{1, policy.ProtocolTCP, policy.ProtocolUDP,
					policy.ProtocolSCTP} {
					for _, port := range randomcluster.Ports {
						p := ruleworld.Packet{Src: src, Dst: dst, Protocol: protocol, Port: port}
						checkPacket(t, c, rs, where, cfg, p)
					}
				}
			}
		}
	})
}

// attachments has the interface by which each local address is reached; empty for those that
// another plugin wired.
func attachments(c *cluster.Cluster) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for _, id := range c.All().Endpoints {
		e, _ := c.Endpoint(id)
		for _, a := range e.Addresses {
			if e.Interface != "" || out[a] == "" {
				out[a] = e.Interface
			}
		}
	}
	return out
}

func checkPacket(t *rapid.T, c *cluster.Cluster, rs *nft.Ruleset, where map[netip.Addr]string,
	cfg ruleset.Config, p ruleworld.Packet) {
	var srcLocal, dstLocal bool
	p.Iif, p.Oif = "eth0", "eth0"
	if veth, ok := where[p.Src]; ok {
		srcLocal, p.Iif = true, nameOr(veth, "cni0")
	}
	if veth, ok := where[p.Dst]; ok {
		dstLocal, p.Oif = true, nameOr(veth, "cni0")
	}
	a := c.Explain(policy.Flow{Source: p.Src, Destination: p.Dst, Protocol: p.Protocol,
		Port: p.Port})
	want := (a.Egress == nil || !srcLocal || a.Egress.Allowed) &&
		(a.Ingress == nil || !dstLocal || a.Ingress.Allowed)
	for _, r := range cfg.PodRanges { // unknown pods carry nothing
		if r.Contains(p.Src) && !srcLocal || r.Contains(p.Dst) && !dstLocal {
			want = false
		}
	}
	if len(cfg.PodRanges) > 0 && isLinkScope(p.Dst) { // what only a bridge would forward
		want = false
	}
	if a.Exempt != "" && (!srcLocal || !dstLocal) {
		return // a node's own packets don't meet these hooks
	}
	got, err := ruleworld.Traverse(rs, nft.HookForward, p)
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	if got != want {
		t.Fatalf("%+v: the ruleset passes it: %v; the policies: %s", p, got, a)
	}
}

func isLinkScope(a netip.Addr) bool {
	return a.IsMulticast() || a.IsLinkLocalUnicast() && a.Is6() ||
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func nameOr(name, other string) string {
	if name == "" {
		return other
	}
	return name
}

// TestUnknownPodsCarryNothing: with no pod programmed at all.
func TestUnknownPodsCarryNothing(t *testing.T) {
	t.Parallel()
	c := cluster.New(cluster.Options{Node: "n1"})
	for _, ipvs := range []bool{false, true} {
		cfg := ruleset.Config{IPVS: ipvs,
			PodRanges: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16"),
				netip.MustParsePrefix("fd88::/64")}}
		rs := ruleset.NewRenderer(cfg).Ruleset(c)
		outside, ours := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.244.1.1")
		bridged, bridged6 := netip.MustParseAddr("10.88.1.1"), netip.MustParseAddr("fd88::1")
		outside6 := netip.MustParseAddr("2001:db8::1")
		gateway, gateway6 := netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd88::ffff")
		for name, tc := range map[string]struct {
			hook nft.Hook
			p    ruleworld.Packet
			want bool
		}{
			"control: strangers": {nft.HookForward,
				ruleworld.Packet{Src: outside, Dst: outside, Iif: "eth0", Oif: "eth1"}, true},
			"control: the tunnel": {nft.HookForward,
				ruleworld.Packet{Src: outside, Dst: outside, Iif: "sluice.1", Oif: "eth1"}, true},
			"control: input": {
				nft.HookInput, ruleworld.Packet{Src: outside, Dst: outside, Iif: "eth0"}, true},
			"from a veth": {nft.HookForward,
				ruleworld.Packet{Src: ours, Dst: outside, Iif: "slup0", Oif: "eth0"}, false},
			"from a veth, foreign source": {nft.HookForward,
				ruleworld.Packet{Src: outside, Dst: outside, Iif: "slup0", Oif: "eth0"}, false},
			"from a veth, bridged source": {nft.HookForward,
				ruleworld.Packet{Src: bridged, Dst: outside, Iif: "slup0", Oif: "eth0"}, false},
			"from a veth to the node": {
				nft.HookInput, ruleworld.Packet{Src: ours, Dst: outside, Iif: "slup0"}, false},
			"to a veth": {nft.HookForward,
				ruleworld.Packet{Src: outside, Dst: ours, Iif: "eth0", Oif: "slup0"}, false},
			"from a bridge": {nft.HookForward,
				ruleworld.Packet{Src: bridged, Dst: outside, Iif: "cni0", Oif: "eth0"}, false},
			"from a bridge, IPv6": {nft.HookForward,
				ruleworld.Packet{Src: bridged6, Dst: outside6, Iif: "cni0", Oif: "eth0"}, false},
			"from a bridge to the node": {
				nft.HookInput, ruleworld.Packet{Src: bridged, Dst: outside, Iif: "cni0"}, false},
			"to a bridge": {nft.HookForward,
				ruleworld.Packet{Src: outside, Dst: bridged, Iif: "eth0", Oif: "cni0"}, false},
			"re-injected by IPVS": {
				nft.HookOutput, ruleworld.Packet{Src: outside, Dst: bridged, Oif: "cni0"}, !ipvs},
			"re-injected by IPVS to a veth": {
				nft.HookOutput, ruleworld.Packet{Src: outside, Dst: ours, Oif: "slup0"}, !ipvs},
			"the node's own, IPVS or not": {nft.HookOutput,
				ruleworld.Packet{Src: outside, Dst: bridged, Oif: "cni0", LocalSrc: true}, true},
			"the node to itself": {nft.HookInput,
				ruleworld.Packet{Src: gateway, Dst: gateway, Iif: "lo", LocalSrc: true,
					LocalDst: true}, true},
			"the node to itself, IPv6": {nft.HookInput,
				ruleworld.Packet{Src: gateway6, Dst: gateway6, Iif: "lo", LocalSrc: true,
					LocalDst: true}, true},
			"a bridge with its address": {nft.HookInput,
				ruleworld.Packet{Src: gateway6, Dst: gateway6, Iif: "cni0", LocalSrc: true,
					LocalDst: true}, false},
		} {
			got, err := ruleworld.Traverse(rs, tc.hook, tc.p)
			if err != nil || got != tc.want {
				t.Errorf("ipvs %v: %s: got %v, want %v, error %v", ipvs, name, got, tc.want, err)
			}
		}
	}
}
