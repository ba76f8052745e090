package table

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// The floods look for a gap between two states that both deny: a client sends as fast as one core
// can, while on the other core the table changes. A gap of a microsecond lets a packet through
// sooner or later, and one is a failure.
//
// They are not parallel: each wants both cores. Each runs twice: as the Table does it, and without
// waiting for packets under way between transactions, which is a thousand times as fast and leaves
// the order alone to hold.

const (
	floodPort = 9000
	clientCPU = 0
)

var (
	clientAddr = netip.MustParseAddr("10.244.1.2")
	otherAddr  = netip.MustParseAddr("10.244.1.3")
	serverAddr = netip.MustParseAddr("10.244.1.4")
	victimAddr = netip.MustParseAddr("10.244.1.5") // another pod, which the client may reach
)

// pace is one way to run a flood.
type pace struct {
	name        string
	hasty       bool
	short, long int // changes, in the short and in the long form
}

var paces = []pace{{"waiting", false, 30, 2000},
	{"hasty", true, stretch.Fewer(5000), 100_000}}

// each runs a flood at both paces, with up to most changes.
func each(t *testing.T, most int, flood func(f *floodNet, n int)) {
	t.Helper()
	for _, p := range paces {
		t.Run(p.name, func(t *testing.T) {
			n := p.short
			if os.Getenv("SLUICE_LONG") != "" {
				n = p.long
			}
			flood(newFloodNet(t, p.hasty), min(n, most))
		})
	}
}

// Limits of changes: the shape changes 100 times in both forms and paces but the short waiting one.
const (
	noLimit      = 1 << 30
	shapeChanges = 100
)

// floodNet is a node with a client, a server and another pod, and a ruleset in the shape that
// Sluice gives it, written out by hand.
type floodNet struct {
	t      *testing.T
	node   *testnet.Node
	hosts  map[netip.Addr]*testnet.Host
	table  *Table
	hasty  bool // see pace
	shape  int
	chain  int
	client *testnet.Host
}

func newFloodNet(t *testing.T, hasty bool) *floodNet {
	t.Helper()
	testnet.NeedTwoProcessors(t)
	f := &floodNet{t: t, hasty: hasty, node: testnet.NewNode(t),
		hosts: map[netip.Addr]*testnet.Host{}, shape: 1}
	for i, a := range []netip.Addr{clientAddr, otherAddr, serverAddr, victimAddr} {
		f.hosts[a] = f.node.Pod(fmt.Sprintf("pod-%d", i), a)
	}
	f.client = f.hosts[clientAddr]
	table, err := Open(Options{NetNS: f.node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	f.table = table
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// apply is Table.Apply, which doesn't wait for packets under way if it is hasty.
func (f *floodNet) apply(p nft.Patch) error {
	if !f.hasty {
		return f.table.Apply(context.Background(), p)
	}
	b := nft.Plan(f.table.desired, p)
	f.table.desired.Merge(p)
	return f.hurry(b)
}

// sync is Table.Sync, likewise.
func (f *floodNet) sync(want *nft.Ruleset) error {
	if !f.hasty {
		return f.table.Sync(context.Background(), want)
	}
	f.table.desired = want
	for {
		got, err := f.table.readBack(context.Background(), want)
		if err != nil {
			return err
		}
		b := nft.Plan(got.Rules, nft.Diff(got.Rules, want))
		b.Prepare = withoutAddTable(b.Prepare)
		if err := f.hurry(b); err != nil || !b.Twins {
			return err
		}
	}
}

func (f *floodNet) hurry(b nft.Batch) error {
	b.WaitBeforeWiden, b.WaitBeforeSwitch = false, false
	b.WaitBeforeNarrow, b.WaitBeforeFinish = false, false
	return f.table.carryOut(context.Background(), b, nil)
}

func (f *floodNet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// key is the server's entry in the dispatch map.
func (f *floodNet) key(a netip.Addr) nft.Element {
	return nft.AddrIfaceElement(a, f.hosts[a].Interface())
}

func do(kind nft.VerdictKind) nft.Do { return nft.Do{Verdict: nft.Verdict{Kind: kind}} }

// ruleset dispatches the server to the chain "pod", which the caller adds.
func (f *floodNet) ruleset(shape int, pod *nft.Chain) *nft.Ruleset {
	rs := nft.NewRuleset()
	dispatch := fmt.Sprintf("dispatch/%d", shape)
	fields := []nft.Field{nft.DstAddr4, nft.OutIface}
	rs.AddSet(&nft.Set{Name: dispatch, Key: fields, Verdicts: true,
		Elements: map[nft.Element]nft.Verdict{
			f.key(serverAddr): nft.JumpTo(pod.Name), f.key(victimAddr): nft.JumpTo("pod/victim"),
		}})
	rs.AddChain(pod)
	rs.AddChain(&nft.Chain{Name: "pod/victim",
		Rules: []nft.Rule{rule(nft.MatchAddr{Field: nft.SrcAddr4, Addr: clientAddr},
			do(nft.Accept)), rule(do(nft.Drop))}})
	rs.AddChain(&nft.Chain{
		Name: fmt.Sprintf("ingress/%d", shape),
		Base: &nft.Base{Hook: nft.HookForward, Priority: -1},
		Rules: []nft.Rule{
			rule(nft.MatchCT{State: nft.CTEstablished}, do(nft.Accept)),
			rule(nft.Dispatch{Fields: fields, Map: dispatch}),
			rule(nft.MatchIface{Field: nft.OutIface, Name: names.PodLinks}, do(nft.Drop)),
		},
	})
	return rs
}

// podChain accepts from one address only; each call makes a new chain.
func (f *floodNet) podChain(from netip.Addr) *nft.Chain {
	f.chain++
	return &nft.Chain{Name: fmt.Sprintf("pod/%d", f.chain), Rules: []nft.Rule{
		rule(nft.MatchAddr{Field: nft.SrcAddr4, Addr: from}, do(nft.Accept)), rule(do(nft.Drop)),
	}}
}

// control shows that the client's flood arrives where it is allowed.
func (f *floodNet) control() {
	f.t.Helper()
	sink := f.hosts[victimAddr].Sink(testnet.UDP, floodPort)
	flood := f.client.Flood(netip.AddrPortFrom(victimAddr, floodPort), testnet.OnCPU(clientCPU))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(stretch.By(time.Minute)); sink.Received() < 1000; <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatalf("control: %d packets of %d arrived", sink.Received(), flood.Sent())
		}
	}
	flood.Stop()
}

// underFlood floods the server while change runs, once with every number of rounds, and demands
// that nothing arrived. What is hasty, it leaves out on emulated processors.
func (f *floodNet) underFlood(n int, change func(i int) error) {
	f.t.Helper()
	if f.hasty && stretch.Factor() > 1 {
		f.t.Skip("an emulated processor can rest with a packet on its way, for longer than two " +
			"transactions take that don't wait for it")
	}
	f.control()
	sink := f.hosts[serverAddr].Sink(testnet.UDP, floodPort)
	flood := f.client.Flood(netip.AddrPortFrom(serverAddr, floodPort), testnet.OnCPU(clientCPU))
	start := time.Now()
	for i := range n {
		f.must(change(i))
	}
	elapsed := time.Since(start)
	sent := flood.Stop()
	if got := sink.Received(); got > 0 {
		f.t.Errorf("%d packets of %d were received over %d changes", got, sent, n)
	}
	f.t.Logf("%d changes in %v, %d packets sent, %d received", n, elapsed.Round(time.Millisecond),
		sent, sink.Received())
	if sent < uint64(n) {
		f.t.Errorf("only %d packets were sent over %d changes", sent, n)
	}
}

// TestFloodWhileDispatchIsRepointed: the server's dispatch goes to a new chain every time; the old
// chain goes. None allows the client.
func TestFloodWhileDispatchIsRepointed(t *testing.T) {
	each(t, noLimit, func(f *floodNet, n int) {
		old := f.podChain(otherAddr)
		f.must(f.table.Sync(context.Background(), f.ruleset(1, old)))
		f.underFlood(n, func(int) error {
			now := f.podChain(otherAddr)
			p := f.repoint(old, now)
			old = now
			return f.apply(p)
		})
	})
}

func (f *floodNet) repoint(old, now *nft.Chain) nft.Patch {
	return nft.Patch{
		Chains: map[string]*nft.Chain{old.Name: nil, now.Name: now},
		Sets: map[string]*nft.SetPatch{
			fmt.Sprintf("dispatch/%d", f.shape): {
				Put: map[nft.Element]nft.Verdict{f.key(serverAddr): nft.JumpTo(now.Name)}},
		},
	}
}

// TestFloodWhileRuleAndSetChange: one state allows the client another port, the other state allows
// the port to another pod. The rule of the one with the set of the other would let the flood in.
func TestFloodWhileRuleAndSetChange(t *testing.T) {
	each(t, noLimit, floodRuleAndSet)
}

func floodRuleAndSet(f *floodNet, n int) {
	f.t.Helper()
	rs, patch := f.ruleAndSet()
	f.must(f.table.Sync(context.Background(), rs))
	f.underFlood(n, func(i int) error { return f.apply(patch(i)) })
}

// ruleAndSet returns the first of the two states, and the change number i.
func (f *floodNet) ruleAndSet() (*nft.Ruleset, func(i int) nft.Patch) {
	chain := func(port uint16) *nft.Chain {
		return &nft.Chain{Name: "pod/server", Rules: []nft.Rule{
			rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "set/peers"},
				nft.MatchPort{Proto: 17, First: port, Last: port}, do(nft.Accept)),
			rule(do(nft.Drop)),
		}}
	}
	rs := f.ruleset(1, chain(floodPort))
	rs.AddSet(&nft.Set{Name: "set/peers", Key: []nft.Field{nft.SrcAddr4},
		Elements: map[nft.Element]nft.Verdict{nft.AddrElement(otherAddr): {}}})
	return rs, func(i int) nft.Patch {
		port, in, out := uint16(floodPort+1), clientAddr, otherAddr
		if i%2 == 1 {
			port, in, out = floodPort, otherAddr, clientAddr
		}
		return nft.Patch{
			Chains: map[string]*nft.Chain{"pod/server": chain(port)},
			Sets: map[string]*nft.SetPatch{"set/peers": {
				Put:    map[nft.Element]nft.Verdict{nft.AddrElement(in): {}},
				Remove: map[nft.Element]struct{}{nft.AddrElement(out): {}},
			}},
		}
	}
}

// TestFloodFindsAGap is the floods' control: the same change in one transaction instead of two does
// leak, and the flood sees it.
func TestFloodFindsAGap(t *testing.T) {
	f := newFloodNet(t, true)
	rs, patch := f.ruleAndSet()
	f.must(f.table.Sync(context.Background(), rs))
	sink := f.hosts[serverAddr].Sink(testnet.UDP, floodPort)
	flood := f.client.Flood(netip.AddrPortFrom(serverAddr, floodPort), testnet.OnCPU(clientCPU))
	defer flood.Stop()
	const most = 1_000_000
	for i := range most {
		p := patch(i)
		b := nft.Plan(f.table.desired, p)
		f.table.desired.Merge(p)
		f.must(f.table.carryOut(context.Background(),
			nft.Batch{Switch: b.Ops()}, nil))
		if i%100 == 0 && sink.Received() > 0 {
			t.Logf("%d packets came through in %d changes", sink.Received(), i+1)
			return
		}
	}
	t.Errorf("nothing came through in %d changes: the flood wouldn't see a gap", most)
}

// TestFloodWhileTheShapeIsUpgraded: base chains and dispatch maps of another version take the place
// of the installed ones.
func TestFloodWhileTheShapeIsUpgraded(t *testing.T) {
	each(t, shapeChanges, func(f *floodNet, n int) {
		f.must(f.table.Sync(context.Background(), f.ruleset(1, f.podChain(otherAddr))))
		f.underFlood(n, func(i int) error {
			return f.sync(f.ruleset(2-i%2, f.podChain(otherAddr)))
		})
	})
}

// TestAllowedFloodLosesNothing: a client whose own rules and sets aren't touched loses at most one
// packet while another pod is repointed.
func TestAllowedFloodLosesNothing(t *testing.T) {
	each(t, noLimit, floodAllowed)
}

func floodAllowed(f *floodNet, n int) {
	f.t.Helper()
	old := f.podChain(otherAddr)
	f.must(f.table.Sync(context.Background(), f.ruleset(1, old)))
	// counted in the node: a socket's buffer could overflow
	read := f.node.Watch(fmt.Sprintf("ip daddr %s udp dport %d", victimAddr, floodPort))
	f.hosts[victimAddr].Sink(testnet.UDP, floodPort)
	flood := f.client.Flood(netip.AddrPortFrom(victimAddr, floodPort), testnet.OnCPU(clientCPU))
	for range n {
		now := f.podChain(otherAddr)
		f.must(f.apply(f.repoint(old, now)))
		old = now
	}
	flood.Stop()
	came, passed := read()
	f.t.Logf("%d repoints, %d packets came, %d passed", n, came[0], passed[0])
	if came[0] < uint64(n) || came[0] > passed[0]+1 {
		f.t.Errorf("%d packets came over %d repoints, %d passed", came[0], n, passed[0])
	}
}
