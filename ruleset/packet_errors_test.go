package ruleset_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/ruleworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// errorWorld is a world in which hosts send ICMP errors about connections.
type errorWorld struct{ *packetWorld }

// newErrorWorld counts what has passed our chains: behind them, at forward and input.
func newErrorWorld(t *testing.T, cfg ruleset.Config) *errorWorld {
	t.Helper()
	w := &errorWorld{newPacketWorld(t, cfg)}
	w.Node.NftInput(`table inet passed {
	chain forward { type filter hook forward priority 10; meta l4proto { icmp, ipv6-icmp } ct state related,invalid counter; }
	chain input { type filter hook input priority 110; meta l4proto { icmp, ipv6-icmp } ct state related,invalid counter; }
}`)
	return w
}

func (w *errorWorld) passed() (n int) {
	w.T.Helper()
	for line := range strings.Lines(w.Node.Nft("list", "table", "inet", "passed")) {
		if _, after, ok := strings.Cut(line, "counter packets "); ok {
			count, _, _ := strings.Cut(after, " ")
			one, err := strconv.Atoi(count)
			if err != nil {
				w.T.Fatal(err)
			}
			n += one
		}
	}
	return n
}

// flow opens a connection and says what its client's packets are like where they arrive.
func (w *errorWorld) flow(proto testnet.Protocol, from string,
	dst netip.AddrPort) (*testnet.Flow, testnet.Quoted) {
	w.T.Helper()
	f := w.Hosts[from].Open(w.T, proto, dst)
	src := f.LocalAddr()
	return f, testnet.Quoted{Protocol: proto,
		Src: netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), Dst: dst}
}

// sends has a host send an error to an address, about a packet, and demands that it passes or not.
// A packet of ours is through the hooks of a veth pair before the sender's call returns; what is
// sent afterwards, as a control, proves that.
func (w *errorWorld) sends(who string, to netip.Addr, about testnet.Quoted, mtu uint16,
	passes bool) {
	w.T.Helper()
	family := 6
	if to.Is4() {
		family = 4
	}
	before := w.passed()
	err := w.Hosts[who].SendICMPError(w.Addr(who, family), to, about, mtu,
		bytes.Repeat([]byte("x"), 1000))
	if err != nil {
		w.T.Fatal(err)
	}
	w.Allowed("ops/probe > out icmp")
	if got := w.passed() - before; (got > 0) != passes {
		w.T.Errorf("%s's error to %s about %+v: passed %d times, want %t", who, to, about,
			got, passes)
	}
}

const (
	noEgress  = `{podSelector: {}, policyTypes: [Egress]}`
	portsOnly = `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 80, protocol: UDP}]}]}`
	anyEgress = `{podSelector: {}, policyTypes: [Egress], egress: [{}]}`
	isolated  = `{podSelector: {}, policyTypes: [Ingress, Egress]}`
	onlyWeb   = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80, protocol: UDP}, {port: 80}]}]}`
	onlyDB    = `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}`
)

// TestForgedErrorsAreJudged: an error about a connection passes as one if its sender is an end of
// it or no pod of this node. All else that a pod sends is judged like any packet of that pod: a
// rule without ports may allow it, one with ports doesn't.
func TestForgedErrorsAreJudged(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]ruleset.Config{
		"own network": {Network: ruleworld.Network()}, "policies alone": {},
		"output judged": {IPVS: true}, "own node open": {AllowPodToNode: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newErrorWorld(t, cfg)
			for _, family := range packetworld.BothFamilies {
				w.forge(family, cfg.AllowPodToNode)
			}
		})
	}
}

// forge has prod/web and others send errors about connections between dev/web, dev/db, out and the
// node.
func (w *errorWorld) forge(family int, toNode bool) {
	w.T.Helper()
	at := func(name string) netip.AddrPort { return netip.AddrPortFrom(w.Addr(name, family), 80) }
	_, inside := w.flow(testnet.UDP, "dev/web", at("dev/db"))
	// out2's packets, so that errors about them go out
	_, outward := w.flow(testnet.UDP, "out2", at("dev/db"))
	_, ofNode := w.flow(testnet.TCP, "node", at("dev/db"))
	web, out, node := w.Addr("dev/web", family), w.Addr("out2", family), ofNode.Src.Addr()

	w.sends("prod/web", web, inside, 0, true) // control
	w.sends("prod/web", out, outward, 0, true)
	w.sends("prod/web", node, ofNode, 0, true)

	w.SetPolicy(map[string]string{"prod/p": noEgress})
	w.sends("prod/web", web, inside, 0, false)
	w.sends("prod/web", web, inside, 1280, false)
	w.sends("prod/web", out, outward, 0, false)
	w.sends("prod/web", node, ofNode, 0, toNode)
	w.SetPolicy(map[string]string{"prod/p": portsOnly})
	w.sends("prod/web", web, inside, 0, false)
	w.sends("prod/web", node, ofNode, 0, toNode)
	w.SetPolicy(map[string]string{"prod/p": anyEgress})
	w.sends("prod/web", web, inside, 0, true)
	w.sends("prod/web", node, ofNode, 0, true)

	// The receiver's ingress judges it as well; the connection's other end, and who is no pod, are
	// heard.
	w.SetPolicy(map[string]string{"dev/p": isolated, "dev/in": onlyWeb, "dev/out": onlyDB})
	w.sends("prod/web", web, inside, 0, false)
	w.sends("dev/db", web, inside, 0, true)
	w.sends("dev/db", out, outward, 0, true)
	w.sends("dev/db", node, ofNode, 0, true)
	w.sends("out", web, inside, 1280, true)
	reply := testnet.Quoted{Protocol: inside.Protocol, Src: inside.Dst, Dst: inside.Src}
	w.sends("dev/web", w.Addr("dev/db", family), reply, 0, true) // its other direction
	w.sends("prod/web", w.Addr("dev/db", family), reply, 0, false)
	w.clearPolicies("prod/p", "dev/p", "dev/in", "dev/out")
	w.sends("prod/web", web, inside, 0, true)
}

func (w *errorWorld) clearPolicies(names ...string) {
	w.T.Helper()
	for _, name := range names {
		namespace, name, _ := strings.Cut(name, "/")
		w.Cluster.DeletePolicy(policy.Key{Namespace: namespace, Name: name})
	}
	w.Apply()
}

// TestForgedErrorsThroughTranslation: behind a Service's address the backend is an end of the
// connection, and behind masquerading the pod that speaks: their errors pass, and others' don't,
// not even by way of the node's address.
func TestForgedErrorsThroughTranslation(t *testing.T) {
	t.Parallel()
	w := newErrorWorld(t, ruleset.Config{Network: ruleworld.Network()})
	for _, family := range packetworld.BothFamilies {
		virtual := netip.AddrPortFrom(packetworld.Service[family], 80)
		w.Node.DNAT(testnet.UDP, virtual, netip.AddrPortFrom(w.Addr("dev/db", family), 81))
		toService, byService := w.flow(testnet.UDP, "dev/web", virtual)
		behind := testnet.Quoted{Protocol: testnet.UDP, Src: byService.Src,
			Dst: netip.AddrPortFrom(w.Addr("dev/db", family), 81)}
		masqueraded := w.Hosts["dev/web"].MustReach(t, testnet.UDP,
			netip.AddrPortFrom(w.Addr("out", family), 80))
		seen := testnet.Quoted{Protocol: testnet.UDP, Src: clientOf(t, masqueraded),
			Dst: netip.AddrPortFrom(w.Addr("out", family), 80)}
		if seen.Src.Addr() == w.Addr("dev/web", family) {
			t.Fatal("it isn't masqueraded")
		}
		web := w.Addr("dev/web", family)
		w.sends("prod/web", web, behind, 0, true) // control
		w.sends("prod/web", seen.Src.Addr(), seen, 0, true)
		if err := toService.Echo(); !errors.Is(err, testnet.ErrReset) {
			t.Errorf("IPv%d: control: a forged error doesn't reach the client: %v", family, err)
		}
		w.SetPolicy(map[string]string{"prod/p": portsOnly, "dev/p": isolated})
		w.sends("prod/web", web, behind, 0, false)
		w.sends("prod/web", seen.Src.Addr(), seen, 0, false)
		w.sends("prod/web", seen.Src.Addr(), seen, 1280, false)
		if err := toService.Echo(); err != nil {
			t.Errorf("IPv%d: a forged error reaches the client: %v", family, err)
		}
		w.sends("dev/db", web, behind, 0, true)
		w.sends("out", seen.Src.Addr(), seen, 0, true)
		w.sends("out2", seen.Src.Addr(), seen, 1280, true) // a router
		if err := toService.Echo(); !errors.Is(err, testnet.ErrReset) {
			t.Errorf("IPv%d: the backend's error doesn't reach the client: %v", family, err)
		}
		w.clearPolicies("prod/p", "dev/p")
	}
}

// TestForgedErrorsOfBridgedPods: pods that another plugin wired are known by their addresses.
func TestForgedErrorsOfBridgedPods(t *testing.T) {
	t.Parallel()
	w := newErrorWorld(t, ruleset.Config{PodRanges: packetworld.BridgedRanges})
	for _, p := range w.BridgePods("client", "server", "other") {
		w.Cluster.SetPod(p)
		w.Cluster.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Addresses: p.Addresses})
	}
	w.Apply()
	for _, family := range packetworld.BothFamilies {
		_, about := w.flow(testnet.UDP, "ops/client",
			netip.AddrPortFrom(w.Addr("ops/server", family), 80))
		_, outward := w.flow(testnet.UDP, "out",
			netip.AddrPortFrom(w.Addr("ops/server", family), 80))
		client, out := w.Addr("ops/client", family), w.Addr("out", family)
		w.sends("ops/other", client, about, 0, true) // control
		w.sends("dev/web", client, about, 0, true)
		w.SetPolicy(map[string]string{"ops/p": `{podSelector: {matchLabels: {app: client}}}`})
		w.sends("ops/other", client, about, 0, false) // by the receiver's ingress
		w.sends("dev/web", client, about, 0, false)
		w.SetPolicy(
			map[string]string{
				"ops/p": `{podSelector: {matchExpressions: [{key: app, operator: Exists}]}, policyTypes: [Ingress, Egress]}`})
		w.sends("ops/other", client, about, 0, false)
		w.sends("ops/other", out, outward, 0, false)
		w.sends("ops/server", client, about, 0, true)
		w.sends("ops/server", out, outward, 0, true)
		w.sends("out2", client, about, 1280, true) // a router
		w.clearPolicies("ops/p")
	}
}

// TestUnknownPodSendsNoErrors: nor does a pod that isn't programmed.
func TestUnknownPodSendsNoErrors(t *testing.T) {
	t.Parallel()
	w := newErrorWorld(t, ruleset.Config{})
	about := map[int]testnet.Quoted{}
	for _, family := range packetworld.BothFamilies {
		_, about[family] = w.flow(testnet.UDP, "dev/web",
			netip.AddrPortFrom(w.Addr("dev/db", family), 80))
		w.sends("prod/web", w.Addr("dev/web", family), about[family], 0, true) // control
	}
	w.Cluster.DeleteEndpoint(w.Hosts["prod/web"].Interface())
	w.Apply()
	for _, family := range packetworld.BothFamilies {
		w.sends("prod/web", w.Addr("dev/web", family), about[family], 0, false)
	}
}
