package enforcer

import (
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
)

type flowsOf = [][2]string

// TestTighteningCuts: each kind of tightening ends the connections that policy denies now, and no
// other: resets for TCP, silence for UDP, whichever end began and whichever sends next.
func TestTighteningCuts(t *testing.T) {
	t.Parallel()
	const low, high = 7000, 7500
	const toDB = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [
		{podSelector: {matchLabels: {app: web}}, namespaceSelector: {matchLabels: {env: prod}}},
		{podSelector: {matchLabels: {app: web}}},
		{ipBlock: {cidr: {{ip4 "out"}}/32}}, {ipBlock: {cidr: {{ip6 "out"}}/128}},
		{ipBlock: {cidr: {{ip4 "out2"}}/32}}, {ipBlock: {cidr: {{ip6 "out2"}}/128}}]}]}`
	for name, test := range map[string]struct {
		before        string // of policy dev/p; empty: there is none
		change        func(w *cutWorld)
		denied, stays flowsOf
	}{
		"policy created": {
			change: func(w *cutWorld) { w.policies(map[string]string{"dev/p": toDB}) },
			denied: flowsOf{{"ops/probe", "dev/db"}},
			stays: flowsOf{{"dev/web", "dev/db"}, {"out", "dev/db"}, {"dev/db", "ops/probe"},
				{"node", "dev/db"}, {"dev/db", "dev/db"}},
		},
		"policy edited": {
			before: toDB,
			change: func(w *cutWorld) {
				w.policies(
					map[string]string{
						"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}`})
			},
			denied: flowsOf{{"prod/web", "dev/db"}, {"out", "dev/db"}},
			stays:  flowsOf{{"dev/web", "dev/db"}, {"dev/db", "out"}, {"dev/db", "prod/web"}},
		},
		"peer relabelled": {
			before: toDB,
			change: func(w *cutWorld) { w.relabel("prod/web", map[string]string{"app": "cold"}) },
			denied: flowsOf{{"prod/web", "dev/db"}},
			stays:  flowsOf{{"dev/web", "dev/db"}, {"dev/db", "prod/web"}},
		},
		"pod relabelled": {
			before: `{podSelector: {matchLabels: {app: cold}}, policyTypes: [Ingress, Egress]}`,
			change: func(w *cutWorld) { w.relabel("dev/db", map[string]string{"app": "cold"}) },
			denied: flowsOf{{"dev/web", "dev/db"}, {"dev/db", "dev/web"}, {"dev/db", "out"},
				{"out", "dev/db"}},
			stays: flowsOf{{"dev/web", "out"}, {"node", "dev/db"}, {"dev/db", "dev/db"}},
		},
		"namespace relabelled": {
			before: toDB,
			change: func(w *cutWorld) {
				w.change(func(c *Model) {
					c.SetNamespace("prod", map[string]string{"env": "none"})
				})
			},
			denied: flowsOf{{"prod/web", "dev/db"}},
			stays:  flowsOf{{"dev/web", "dev/db"}, {"dev/db", "prod/web"}},
		},
		"ipBlock changed": {
			before: toDB,
			change: func(w *cutWorld) {
				w.policies(
					map[string]string{
						"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}},
					{ipBlock: {cidr: 0.0.0.0/0, except: [{{ip4 "out2"}}/32]}}, {ipBlock: {cidr: "::/0", except: ["{{ip6 "out2"}}/128"]}}]}]}`})
			},
			denied: flowsOf{{"out2", "dev/db"}},
			stays:  flowsOf{{"out", "dev/db"}, {"dev/db", "out2"}, {"prod/web", "dev/db"}},
		},
		"peer gone": {
			before: toDB,
			change: func(w *cutWorld) { w.change(func(c *Model) { c.DeletePod("prod", "web") }) },
			denied: flowsOf{{"prod/web", "dev/db"}},
			stays:  flowsOf{{"dev/web", "dev/db"}, {"out", "prod/web"}},
		},
		"egress": {
			before: `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}`,
			change: func(w *cutWorld) {
				w.policies(
					map[string]string{
						"dev/p": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress],
					egress: [{to: [{podSelector: {}}], ports: [{port: 7500, endPort: 7999}, {protocol: UDP, port: 7500, endPort: 7999}]}]}`})
			},
			denied: flowsOf{{"dev/web", "dev/db"}, {"dev/web", "out"}},
			stays:  flowsOf{{"dev/db", "dev/web"}, {"out", "dev/web"}, {"dev/db", "out"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
			if test.before != "" {
				w.policies(map[string]string{"dev/p": test.before})
			}
			denied := w.openAll(low, test.denied...)
			stays := append(w.openAll(low, test.stays...),
				w.openAll(high, flowsOf{{"dev/web", "dev/db"}}...)...)
			if name == "pod relabelled" {
				denied, stays = append(denied, stays[len(stays)-4:]...), stays[:len(stays)-4]
			}
			test.change(w)
			for i, c := range denied {
				c.awaitCut()
				if i/2%2 == 0 {
					c.dead(c.client, c.server)
					c.dead(c.server, c.client)
				} else {
					c.dead(c.server, c.client)
					c.dead(c.client, c.server)
				}
			}
			for _, c := range stays {
				c.lives()
				if c.isCut() {
					t.Errorf("%s: marked as cut", c.what)
				}
			}
		})
	}
}

// TestCutThroughTranslation: a Service's connection is known by its backend, a masqueraded one by
// its pod, and the resets find both ends.
func TestCutThroughTranslation(t *testing.T) {
	t.Parallel()
	cutThroughTranslation(t, ruleset.Config{}, (*packetworld.World).DNAT)
}

// TestCutThroughIPVS: the same where IPVS leads to the backends.
func TestCutThroughIPVS(t *testing.T) {
	t.Parallel()
	cutThroughTranslation(t, ruleset.Config{IPVS: true}, (*packetworld.World).IPVS)
}

// cutThroughTranslation has Services made by lead, which leads from an address and port to a host's
// port.
func cutThroughTranslation(t *testing.T, cfg ruleset.Config, lead func(w *packetworld.World,
	family int, from netip.Addr, port uint16, to string, toPort uint16)) {
	t.Helper()
	for _, serverFirst := range []bool{false, true} {
		w := newCutWorld(t, cfg, CutterOptions{}, func(w *cutWorld) {
			w.Node.NftInput(`table inet outward {
				chain p {
					type nat hook postrouting priority srcnat
					ip saddr 10.244.1.0/24 ip daddr 192.0.2.0/24 masquerade
					ip6 saddr fd00:10:244:1::/64 ip6 daddr 2001:db8:1::/64 masquerade
				}
			}`)
		})
		var all, stays []*connection
		for _, family := range packetworld.BothFamilies {
			port := w.freePort(7000)
			lead(w.World, family, packetworld.Service[family], port, "dev/db", port)
			all = append(all, w.open(policy.ProtocolTCP, "dev/web", "dev/db", family, port,
				netip.AddrPortFrom(packetworld.Service[family], port)))
			nodePort := w.freePort(7000)
			lead(w.World, family, w.Addr("node", family), nodePort, "dev/db", nodePort)
			all = append(all, w.open(policy.ProtocolTCP, "out", "dev/db", family, nodePort,
				netip.AddrPortFrom(w.Addr("node", family), nodePort)))
			backend := w.freePort(8000)
			lead(w.World, family, packetworld.Service[family], port+500, "prod/web", backend)
			stays = append(stays, w.open(policy.ProtocolTCP, "dev/web", "prod/web", family, backend,
				netip.AddrPortFrom(packetworld.Service[family], port+500)))
			for _, proto := range cutProtocols {
				all = append(all,
					w.open(proto, "dev/db", "out", family, w.freePort(7000), netip.AddrPort{}))
				stays = append(stays,
					w.open(proto, "prod/web", "out", family, w.freePort(7000), netip.AddrPort{}))
			}
		}
		w.policies(
			map[string]string{
				"prod/p": `{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8999}]}]}`,
				"dev/p": `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress],
			ingress: [{from: [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: 198.51.100.0/24}}, {ipBlock: {cidr: "fd00:10:96::/64"}}]}],
			egress: [{to: [{ipBlock: {cidr: 198.18.0.0/15}}, {ipBlock: {cidr: "2001:2::/48"}}]}]}`})
		for _, c := range all {
			c.awaitCut()
			first, second := c.client, c.server
			if serverFirst {
				first, second = second, first
			}
			c.dead(first, second)
			c.dead(second, first)
		}
		for _, c := range stays {
			c.lives()
		}
	}
}

// TestCutToOwnNode: what a pod has with its node is egress, and what the node has with its pods
// isn't policed, from each of its addresses.
func TestCutToOwnNode(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{false, true} {
		extra := netip.MustParseAddr("172.17.0.1") // no Node object says so
		w := newCutWorld(t, ruleset.Config{AllowPodToNode: allow}, CutterOptions{},
			func(w *cutWorld) { w.Node.AddAddr(extra) })
		toNode := w.openAll(7000, flowsOf{{"dev/web", "node"}}...)
		fromNode := w.openAll(7000, flowsOf{{"node", "dev/web"}}...)
		for _, proto := range cutProtocols {
			fromNode = append(fromNode,
				w.openFrom(extra, proto, "node", "dev/web", 4, w.freePort(7000), netip.AddrPort{}))
		}
		marker := w.open(policy.ProtocolUDP, "dev/web", "dev/db", 4, w.freePort(7000),
			netip.AddrPort{})
		w.policies(
			map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}`})
		marker.awaitCut()
		for _, c := range fromNode {
			c.lives()
		}
		for _, c := range toNode {
			if allow {
				c.lives()
				continue
			}
			c.awaitCut()
			c.dead(c.client, c.server)
		}
	}
}

// TestBridgedPodsAreCut: also where packets between two pods only cross a bridge.
func TestBridgedPodsAreCut(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{PodRanges: packetworld.BridgedRanges}, CutterOptions{}, nil)
	pods := w.BridgePods("client", "server")
	w.change(func(c *Model) {
		for _, p := range pods {
			c.SetPod(p)
			c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Addresses: p.Addresses})
		}
	})
	cut := w.openAll(7000, flowsOf{{"ops/client", "ops/server"}, {"out", "ops/server"}}...)
	stays := w.openAll(7000, flowsOf{{"ops/client", "out"}, {"ops/server", "ops/client"}}...)
	w.policies(
		map[string]string{
			"ops/p": `{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}`})
	for _, c := range cut {
		c.awaitCut()
		c.dead(c.client, c.server)
		c.dead(c.server, c.client)
	}
	for _, c := range stays {
		c.lives()
	}
}
