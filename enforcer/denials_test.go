package enforcer

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// denialWorld is a node with an Enforcer that runs, between the pod dev/web and a host outside.
type denialWorld struct {
	t         *testing.T
	node      *testnet.Node
	pod, out  *testnet.Host
	cfg       ruleset.Config
	enforcer  *Enforcer
	port      uint16 // of the last packet
	endOfLast func()
}

func newDenialWorld(t *testing.T, cfg ruleset.Config) *denialWorld {
	t.Helper()
	a := testAttachment()
	w := &denialWorld{t: t, node: testnet.NewNode(t), cfg: cfg, endOfLast: func() {}}
	w.pod = w.node.Pod("dev/web", a.Addresses...)
	w.out = w.node.Outside("out", netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("2001:db8::1"))
	w.start()
	t.Cleanup(func() { w.endOfLast() })
	return w
}

func (w *denialWorld) attachment() cni.Attachment {
	a := testAttachment()
	a.Interface = w.pod.Interface()
	return a
}

// start runs an Enforcer, as an agent that starts does, instead of the last one.
func (w *denialWorld) start(specs ...string) {
	w.t.Helper()
	w.endOfLast()
	table, err := table.Open(table.Options{NetNS: w.node.NSFd(), Tallied: ruleset.DeniedChains})
	if err != nil {
		w.t.Fatal(err)
	}
	w.enforcer = onTable(table, cluster.Options{Node: cases.NodeName}, w.cfg, testr.New(w.t))
	w.enforcer.Adopt([]cni.Attachment{w.attachment()})
	w.enforcer.Update(func(c *Model) {
		pod := testPod()
		pod.Labels = selector.LabelSetOf(map[string]string{"app": "web"})
		pod.Addresses = w.attachment().Addresses
		c.SetPod(pod)
		for i, spec := range specs {
			c.SetPolicy(w.parse(fmt.Sprintf("dev/p%d", i), spec))
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func(e *Enforcer) { done <- e.Run(ctx) }(w.enforcer)
	w.endOfLast = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		if err := table.Close(); err != nil {
			w.t.Error(err)
		}
	}
	w.commit(func(*Model) {})
}

func (w *denialWorld) parse(key, spec string) policy.Policy {
	w.t.Helper()
	np, err := cases.RenderPolicy(key, spec, cases.Addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return policy.Parse(np)
}

// commit changes the cluster and waits until the kernel has it.
func (w *denialWorld) commit(f func(m *Model)) {
	w.t.Helper()
	w.enforcer.Update(f)
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := w.enforcer.await(ctx, func() error { return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// policies replaces all policies: dev/p0 and so on.
func (w *denialWorld) policies(specs ...string) {
	w.t.Helper()
	w.commit(func(c *Model) {
		for _, k := range c.Policies() {
			c.DeletePolicy(k)
		}
		for i, spec := range specs {
			c.SetPolicy(w.parse(fmt.Sprintf("dev/p%d", i), spec))
		}
	})
}

// Sizes of what send sends: a datagram of 8 bytes with its headers.
const size4, size6 = 20 + 8 + 8, 40 + 8 + 8

// send sends datagrams from ports that weren't used before.
func (w *denialWorld) send(n, family int, outwards bool) {
	w.t.Helper()
	for range n {
		w.port++
		pod, out := w.pod.Addr4(), w.out.Addr4()
		if family == 6 {
			pod, out = w.pod.Addr6(), w.out.Addr6()
		}
		from, src, dst := w.out, out, pod
		if outwards {
			from, src, dst = w.pod, pod, out
		}
		err := from.SendUDP(netip.AddrPortFrom(src, 1000+w.port), netip.AddrPortFrom(dst, 9))
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *denialWorld) denials() string {
	w.t.Helper()
	list, byRules, err := w.enforcer.countedDenials(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var texts []string
	for _, d := range list {
		texts = append(texts, fmt.Sprintf("%s/%s %s %d packets %d bytes", d.Namespace, d.Pod,
			d.Direction, d.Packets, d.Bytes))
	}
	for _, d := range byRules {
		texts = append(texts, fmt.Sprintf("%s %s %s rule %d: %d packets %d bytes", d.Tier,
			d.Policy, d.Direction, d.Rule, d.Packets, d.Bytes))
	}
	return strings.Join(texts, "\n")
}

// expect waits until the counters say so: a packet may be under way when the call that sends it
// returns.
func (w *denialWorld) expect(when string, want ...string) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(packetworld.Patience); w.denials() != strings.Join(want,
		"\n"); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: counted\n%s\nwant\n%s", when, w.denials(), strings.Join(want, "\n"))
		}
	}
}

func denied(d policy.Direction, n4, n6 int) string {
	return fmt.Sprintf("dev/web %s %d packets %d bytes", d, n4+n6, n4*size4+n6*size6)
}

const (
	denyIngress = `{podSelector: {matchLabels: {app: web}}}`
	allow80     = `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80, protocol: UDP}]}]}`
	denyEgress  = `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`
)

// TestDenialsAreCountedExactly: denied packets are counted, and no others, also while the policies
// change.
func TestDenialsAreCountedExactly(t *testing.T) {
	t.Parallel()
	w := newDenialWorld(t, ruleset.Config{})
	w.send(3, 4, false) // control: nothing isolates the pod
	w.expect("without a policy")
	w.policies(denyIngress)
	w.expect("isolated", denied(policy.Ingress, 0, 0))
	w.send(7, 4, false)
	w.send(3, 6, false)
	w.send(2, 4, true) // control: the other direction is open
	w.expect("denied", denied(policy.Ingress, 7, 3))
	w.policies(denyIngress, allow80) // the pod's chain is rewritten
	w.send(5, 6, false)
	w.expect("with another policy", denied(policy.Ingress, 7, 8))
	w.policies(allow80) // and the policy's
	w.send(1, 4, false)
	w.expect("with a policy edited", denied(policy.Ingress, 8, 8))
	w.policies()
	w.send(9, 4, false)
	w.expect("let go", denied(policy.Ingress, 8, 8))
	w.policies(denyIngress, denyEgress)
	w.send(1, 4, false)
	w.send(2, 6, true)
	w.expect("isolated again", denied(policy.Ingress, 9, 8), denied(policy.Egress, 0, 2))
	w.policies()
	w.policies(denyEgress)
	w.expect("again, otherwise", denied(policy.Ingress, 9, 8), denied(policy.Egress, 0, 2))

	const segment = 20 + 20
	src, dst := netip.AddrPortFrom(w.pod.Addr4(), 1), netip.AddrPortFrom(w.out.Addr4(), 80)
	if err := w.pod.SendTCP(src, dst, testnet.ACK, 1, 1); err != nil {
		t.Fatal(err)
	}
	w.expect("reset", denied(policy.Ingress, 9, 8),
		fmt.Sprintf("dev/web egress 3 packets %d bytes", 2*size6+segment))

	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := w.enforcer.Detach(ctx, w.attachment().ID()); err != nil {
		t.Fatal(err)
	}
	w.expect("detached")
	if n := len(w.enforcer.denials.ended); n != 0 {
		t.Errorf("%d chains of the pod are remembered", n)
	}
}

// TestDenialsOutliveTheAgent: an agent that starts goes on with the kernel's counters.
func TestDenialsOutliveTheAgent(t *testing.T) {
	t.Parallel()
	w := newDenialWorld(t, ruleset.Config{LogGroup: 7, LogPerSecond: 10})
	w.policies(denyIngress)
	w.send(4, 4, false)
	w.expect("denied", denied(policy.Ingress, 4, 0))
	w.start(denyIngress)
	w.expect("with another agent", denied(policy.Ingress, 4, 0))
	w.send(2, 6, false)
	w.expect("denied", denied(policy.Ingress, 4, 2))
	w.start(denyIngress, allow80) // what changed while no agent was there
	w.expect("with another policy", denied(policy.Ingress, 4, 2))
}

// TestDenialsOfAFloodAreCountedExactly: while policies come and go, what is denied is what came to
// our chains less what left them.
func TestDenialsOfAFloodAreCountedExactly(t *testing.T) {
	t.Parallel()
	w := newDenialWorld(t, ruleset.Config{})
	for _, chain := range []string{"before -10", "after 10"} {
		name, priority, _ := strings.Cut(chain, " ")
		w.node.NftInput(fmt.Sprintf("table inet %s {\nchain forward {\ntype filter hook forward "+
			"priority %s;\nudp dport 9 counter\n}\n}\n", name, priority))
	}
	flood := w.out.Flood(netip.AddrPortFrom(w.pod.Addr4(), 9))
	rounds := 5
	if os.Getenv("SLUICE_LONG") != "" {
		rounds = 100
	}
	for range rounds {
		sent := flood.Sent()
		for _, specs := range [][]string{{denyIngress}, {denyIngress, allow80}, {allow80}, {}} {
			w.policies(specs...)
			w.awaitMore(flood, sent)
			sent = flood.Sent()
			// to be asked between changes anything
			if _, _, err := w.enforcer.countedDenials(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	flood.Stop()
	before, after := w.counted("before"), w.counted("after")
	if after == 0 || before == after {
		t.Fatalf("%d packets came, %d passed: the flood proves nothing", before, after)
	}
	w.expect("after the flood", denied(policy.Ingress, before-after, 0))
	t.Logf("%d packets, %d of them denied", before, before-after)
}

// awaitMore waits until the flood has sent some more.
func (w *denialWorld) awaitMore(flood *testnet.Flood, than uint64) {
	w.t.Helper()
	const some = 100
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(packetworld.Patience); flood.Sent() < than+some; <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatal("the flood has stopped")
		}
	}
}

// counted reads the counter of a table of the test's own.
func (w *denialWorld) counted(table string) int {
	w.t.Helper()
	_, after, _ := strings.Cut(w.node.Nft("list", "table", "inet", table), "counter packets ")
	text, _, _ := strings.Cut(after, " ")
	n, err := strconv.Atoi(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestDenialMetrics: the series of a pod come and go with it.
func TestDenialMetrics(t *testing.T) {
	t.Parallel()
	w := newDenialWorld(t, ruleset.Config{})
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(NewDenialCollector(w.enforcer)); err != nil {
		t.Fatal(err)
	}
	series := func() (out []string) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				s := f.GetName()
				for _, l := range m.GetLabel() {
					s += " " + l.GetName() + "=" + l.GetValue()
				}
				out = append(out, fmt.Sprintf("%s %v", s, m.GetCounter().GetValue()))
			}
		}
		return out
	}
	if got := series(); len(got) != 0 {
		t.Errorf("before anything is isolated: %q", got)
	}
	w.policies(denyIngress)
	w.send(2, 4, false)
	w.expect("denied", denied(policy.Ingress, 2, 0))
	want := fmt.Sprintf("[sluice_denied_bytes_total direction=ingress namespace=dev pod=web %d "+
		"sluice_denied_packets_total direction=ingress namespace=dev pod=web 2]", 2*size4)
	if got := fmt.Sprint(series()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.commit(func(c *Model) { c.DeleteEndpoint(w.attachment().ID()) })
	if got := series(); len(got) != 0 {
		t.Errorf("without the pod: %q", got)
	}
}
