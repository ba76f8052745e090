package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// big is a ruleset whose transactions have many messages.
func big(chains, rules, elements int) *Ruleset {
	r := NewRuleset()
	hosts := r.AddSet(&Set{Name: "set/hosts", Key: []Field{SrcAddr4}})
	for i := range elements {
		hosts.Elements[AddrElement(nthAddr(i))] = Verdict{}
	}
	pods := r.AddSet(&Set{Name: "map/pods", Key: []Field{SrcAddr4, InIface}, Verdicts: true})
	for i := range chains {
		c := r.AddChain(&Chain{Name: fmt.Sprintf("pod/ns/web-%d/egress", i)})
		for j := range rules {
			port := uint16(j + 1)
			c.Rules = append(c.Rules, Rule{
				Statements: []Statement{InSet{[]Field{SrcAddr4}, "set/hosts"}, MatchPort{6, port, port}, accept},
				Comment:    fmt.Sprintf("ns/policy-%d: rule %d", i, j),
			})
		}
		pods.Elements[AddrIfaceElement(nthAddr(i), fmt.Sprintf("slup%d", i))] = JumpTo(c.Name)
	}
	return r
}

func nthAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// firstSocket is tuned by the first function, later ones as usual.
func firstSocket(first func(*netlink.Conn) error) func(*netlink.Conn) error {
	var used atomic.Bool
	return func(raw *netlink.Conn) error {
		if used.Swap(true) {
			return tuneSocket(raw)
		}
		return first(raw)
	}
}

func tiny(raw *netlink.Conn) error {
	return errors.Join(raw.SetReadBuffer(1), raw.SetWriteBuffer(writeBuffer))
}

// A receive buffer that overflows loses acknowledgements: nobody knows the
// outcome, and the next Apply finds out.
func TestLostAcknowledgements(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{tune: firstSocket(tiny)})
	err := table.Sync(context.Background(), big(200, 5, 100))
	if !errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrRefused) {
		t.Fatalf("Sync: %v", err)
	}
	mustApply(t, table, Patch{Sets: map[string]*SetPatch{
		"set/hosts": {Put: map[Element]Verdict{AddrElement(addr("192.0.2.1")): {}}},
	}})
	mustMatch(t, table)
	want := big(200, 5, 100)
	want.Sets["set/hosts"].Elements[AddrElement(addr("192.0.2.1"))] = Verdict{}
	flushes := table.flushes
	mustSync(t, table, want)
	if table.flushes != flushes {
		t.Error("the patch wasn't merged")
	}
}

// An answer that never comes doesn't hang the caller.
func TestFlushHasADeadline(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	const timeout = 300 * time.Millisecond
	table := n.open(Options{
		FlushTimeout: timeout,
		tune: firstSocket(func(raw *netlink.Conn) error {
			// Acknowledgements are lost, and the kernel doesn't say so.
			return errors.Join(tiny(raw), raw.SetOption(netlink.NoENOBUFS, true))
		}),
	})
	start := time.Now()
	err := table.Sync(context.Background(), big(200, 5, 100))
	if took := time.Since(start); took < timeout || took > timeout+time.Minute {
		t.Errorf("Sync took %v", took)
	}
	if !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("Sync: %v", err)
	}
	table.opts.FlushTimeout = 10 * time.Second
	mustSync(t, table, big(200, 5, 100))
	mustMatch(t, table)
}

// A system call that waits inside the kernel is given up, and nothing else is
// begun until it has ended.
func TestOverdueTransactionKeepsOthersOut(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{FlushTimeout: 50 * time.Millisecond})
	mustSync(t, table, NewRuleset())
	inKernel := make(chan struct{})
	idle, err := table.conn.withDeadline(func() error { <-inKernel; return nil })
	if !errors.Is(err, errOverdue) || !unknownOutcome(err) {
		t.Fatalf("withDeadline: %v", err)
	}
	table.abandon(idle)
	if err := table.Sync(context.Background(), everything()); !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("Sync while another transaction is under way: %v", err)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := table.Sync(canceled, everything()); !errors.Is(err, context.Canceled) {
		t.Fatalf("Sync with a canceled context: %v", err)
	}
	close(inKernel)
	table.opts.FlushTimeout = 10 * time.Second
	mustSync(t, table, everything())
	mustMatch(t, table)
}

// A refusal says so, names the object, and leaves the rest to the next call.
func TestRefusal(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, everything())
	before := n.nft("list", "table", "inet", TableName)
	bad := RangeElement(addr("10.0.0.3"), addr("10.0.0.9")) // overlaps
	err := table.Apply(context.Background(), Patch{
		Chains: map[string]*Chain{"new": {Name: "new", Rules: []Rule{rule(drop)}}},
		Sets: map[string]*SetPatch{
			"set/blocks4": {Put: map[Element]Verdict{bad: {}}},
			"set/new": {Create: &Set{Name: "set/new", Key: []Field{DstAddr4}, Interval: true, Elements: map[Element]Verdict{
				bad: {}, RangeElement(addr("10.0.0.9"), addr("10.0.0.10")): {},
			}}},
		},
	})
	if !errors.Is(err, ErrRefused) || errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("Apply: %v", err)
	}
	if !strings.Contains(err.Error(), "adding elements to set set/new") {
		t.Errorf("the error doesn't name the set: %v", err)
	}
	if after := n.nft("list", "table", "inet", TableName); after != before {
		t.Errorf("a refused transaction left\n%s\nbefore\n%s", after, before)
	}
	// The patch counts as desired; a patch that mends it is enough.
	mustApply(t, table, Patch{Sets: map[string]*SetPatch{
		"set/blocks4": {Remove: map[Element]struct{}{bad: {}}},
		"set/new":     {Remove: map[Element]struct{}{bad: {}}},
	}})
	mustMatch(t, table)
	if !strings.Contains(n.nft("list", "table", "inet", TableName), "chain new {") {
		t.Error("the rest of the patch was lost")
	}
}

func TestNonsenseIsRefusedBeforeTheKernel(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, everything())
	for _, c := range []struct {
		name  string
		patch Patch
	}{
		{"unknown set", Patch{Sets: map[string]*SetPatch{"none": {Put: map[Element]Verdict{{First: "1234"}: {}}}}}},
		{"other name", Patch{Chains: map[string]*Chain{"a": {Name: "b"}}}},
		{"key of another set", Patch{Sets: map[string]*SetPatch{"set/hosts4": {Put: map[Element]Verdict{AddrElement(addr("::1")): {}}}}}},
		{"range in a plain set", Patch{Sets: map[string]*SetPatch{"set/hosts4": {Put: map[Element]Verdict{RangeElement(addr("1.1.1.1"), addr("1.1.1.2")): {}}}}}},
		{"reversed range", Patch{Sets: map[string]*SetPatch{"set/blocks4": {Put: map[Element]Verdict{RangeElement(addr("1.1.1.2"), addr("1.1.1.1")): {}}}}}},
		{"set without verdicts", Patch{Sets: map[string]*SetPatch{"set/hosts4": {Put: map[Element]Verdict{AddrElement(addr("1.1.1.1")): {Kind: Drop}}}}}},
		{"map without verdict", Patch{Sets: map[string]*SetPatch{"map/addr4": {Put: map[Element]Verdict{AddrElement(addr("1.1.1.1")): {}}}}}},
		{"wrong family", Patch{Chains: map[string]*Chain{"a": {Name: "a", Rules: []Rule{rule(MatchAddr{SrcAddr4, addr("::1")})}}}}},
		{"empty ports", Patch{Chains: map[string]*Chain{"a": {Name: "a", Rules: []Rule{rule(MatchPort{6, 2, 1})}}}}},
		{"long interface", Patch{Chains: map[string]*Chain{"a": {Name: "a", Rules: []Rule{rule(MatchIface{InIface, "slup567890123456"})}}}}},
		{"jump nowhere", Patch{Chains: map[string]*Chain{"a": {Name: "a", Rules: []Rule{rule(Do{Verdict{Kind: Jump}})}}}}},
		{"no fields", Patch{Chains: map[string]*Chain{"a": {Name: "a", Rules: []Rule{rule(InSet{Set: "set/hosts4"})}}}}},
	} {
		before := table.flushes
		if err := table.Apply(context.Background(), c.patch); err == nil {
			t.Errorf("%s: no error", c.name)
		}
		if table.flushes != before {
			t.Errorf("%s: %d transactions were made", c.name, table.flushes-before)
		}
		mustSync(t, table, everything())
	}
}

// A canceled context stops between two transactions, and what is done by then
// is no harm: see TestNothingLeaks. The next call goes on.
func TestCancel(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{MaxMessages: 10})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := table.Sync(ctx, big(20, 5, 10)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Sync: %v", err)
	}
	mustApply(t, table, Patch{})
	mustMatch(t, table)
}

// Somebody who writes to another table all the time (kube-proxy) keeps nobody
// from reading ours.
func TestOthersKeepWriting(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, big(300, 3, 3000))

	other, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(n.ns.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		writes := 0
		tick := time.NewTicker(time.Millisecond)
		defer func() { tick.Stop(); stopped <- writes }()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			other.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
			other.DelTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
			if other.Flush() != nil {
				return
			}
			writes++
		}
	}()
	syncErr := table.Sync(context.Background(), big(300, 3, 3000))
	differs, checkErr := table.Check(context.Background())
	close(stop)
	if writes := <-stopped; writes == 0 {
		t.Error("nobody wrote")
	}
	if err := errors.Join(syncErr, checkErr, other.CloseLasting()); err != nil {
		t.Error(err)
	}
	if len(differs) > 0 {
		t.Errorf("it differs: %q", differs)
	}
}

// Rulesets larger than any buffer's default arrive whole.
func TestBigRulesetArrives(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	const chains, rules, elements = 2000, 2, 20000
	mustSync(t, table, big(chains, rules, elements))
	mustMatch(t, table)
	out := n.nft("list", "table", "inet", TableName)
	if got := strings.Count(out, "\tchain pod/ns/web-"); got != chains {
		t.Errorf("%d chains of %d", got, chains)
	}
	if got := strings.Count(out, "tcp dport"); got != chains*rules {
		t.Errorf("%d rules of %d", got, chains*rules)
	}
	if got := strings.Count(out, " : jump pod/ns/web-"); got != chains {
		t.Errorf("%d map elements of %d", got, chains)
	}
	set := n.nft("list", "set", "inet", TableName, "set/hosts")
	if got := strings.Count(set, ",") + 1; got != elements {
		t.Errorf("%d elements of %d", got, elements)
	}
	// All of it in the one transaction that is never split: every rule
	// changes, and every element leaves.
	mustSync(t, table, big(chains, 1, 0))
	mustMatch(t, table)
	mustSync(t, table, NewRuleset())
	mustMatch(t, table)
}

// Elements whose verdicts have the longest names, and ranges, stay below the
// 64 KiB that an attribute holds.
func TestLongElementsArrive(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	r := NewRuleset()
	m := r.AddSet(&Set{Name: "m", Key: []Field{SrcAddr6, InIface}, Verdicts: true})
	ranges := r.AddSet(&Set{Name: "ranges", Key: []Field{SrcAddr6}, Interval: true})
	ports := r.AddSet(&Set{Name: "ports", Key: []Field{DstAddr6, L4Proto, DstPort}, Interval: true})
	for i := range 1500 {
		c := r.AddChain(&Chain{Name: Name("pod", strings.Repeat("n", 300), fmt.Sprint(i))})
		if len(c.Name) != maxName {
			t.Fatalf("name of %d bytes", len(c.Name))
		}
		a := netip.AddrFrom16([16]byte{0: 0xfd, 12: byte(i >> 8), 13: byte(i)})
		last := netip.AddrFrom16([16]byte{0: 0xfd, 12: byte(i >> 8), 13: byte(i), 15: 9})
		m.Elements[AddrIfaceElement(a, "slup0123456789a")] = JumpTo(c.Name)
		ranges.Elements[RangeElement(a, last)] = Verdict{}
		e := AddrProtoPortElement(a, 6, 80)
		e.Last = AddrProtoPortElement(last, 6, 90).First
		ports.Elements[e] = Verdict{}
	}
	mustSync(t, table, r)
	mustMatch(t, table)
	if got := strings.Count(n.nft("list", "map", "inet", TableName, "m"), " : jump pod/nnn"); got != 1500 {
		t.Errorf("%d elements of 1500", got)
	}
}
