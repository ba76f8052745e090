package table

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft"
)

// big is a ruleset whose transactions have many messages.
func big(chains, rules, elements int) *nft.Ruleset {
	r := nft.NewRuleset()
	hosts := r.AddSet(&nft.Set{Name: "set/hosts", Key: []nft.Field{nft.SrcAddr4}})
	for i := range elements {
		hosts.Elements[nft.AddrElement(nthAddr(i))] = nft.Verdict{}
	}
	pods := r.AddSet(&nft.Set{Name: "map/pods", Key: []nft.Field{nft.SrcAddr4, nft.InIface},
		Verdicts: true})
	for i := range chains {
		c := r.AddChain(&nft.Chain{Name: fmt.Sprintf("pod/ns/web-%d/egress", i)})
		for j := range rules {
			port := uint16(j + 1)
			c.Rules = append(c.Rules, nft.Rule{
				Statements: []nft.Statement{nft.InSet{Fields: []nft.Field{nft.SrcAddr4},
					Set: "set/hosts"}, nft.MatchPort{Proto: 6, First: port, Last: port}, accept},
				Comment: fmt.Sprintf("ns/policy-%d: rule %d", i, j),
			})
		}
		pods.Elements[nft.AddrIfaceElement(nthAddr(i),
			fmt.Sprintf("slup%d", i))] = nft.JumpTo(c.Name)
	}
	return r
}

func nthAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// A receive buffer that overflows loses acknowledgements: nobody knows the outcome, and the next
// Apply finds out.
func TestLostAcknowledgements(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.openOver(nth(1, tiny), Options{})
	err := table.Sync(context.Background(), big(200, 5, 100))
	if !errors.Is(err, nft.ErrUnknownOutcome) || errors.Is(err, nft.ErrRefused) {
		t.Fatalf("Sync: %v", err)
	}
	mustApply(t, table, nft.Patch{Sets: map[string]*nft.SetPatch{
		"set/hosts": {Put: map[nft.Element]nft.Verdict{nft.AddrElement(addr("192.0.2.1")): {}}},
	}})
	mustMatch(t, table)
	want := big(200, 5, 100)
	want.Sets["set/hosts"].Elements[nft.AddrElement(addr("192.0.2.1"))] = nft.Verdict{}
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
	// Acknowledgements are lost, and the kernel doesn't say so.
	table := n.openOver(nth(1, func(s nftsocket.Socket) nftsocket.Socket {
		if err := s.SetOption(netlink.NoENOBUFS, true); err != nil {
			t.Error(err)
		}
		return tiny(s)
	}), Options{FlushTimeout: timeout})
	start := time.Now()
	err := table.Sync(context.Background(), big(200, 5, 100))
	if took := time.Since(start); took < timeout || took > timeout+time.Minute {
		t.Errorf("Sync took %v", took)
	}
	if !errors.Is(err, nft.ErrUnknownOutcome) {
		t.Fatalf("Sync: %v", err)
	}
	table.opts.FlushTimeout = 10 * time.Second
	mustSync(t, table, big(200, 5, 100))
	mustMatch(t, table)
}

// A system call that waits inside the kernel is given up, and nothing else is begun until it has
// ended.
func TestOverdueTransactionKeepsOthersOut(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	inKernel := make(chan struct{})
	table := n.openOver(nth(1, func(s nftsocket.Socket) nftsocket.Socket {
		return stuck{s, inKernel}
	}),
		Options{FlushTimeout: 50 * time.Millisecond})
	for _, why := range []string{"the kernel didn't take the transaction in time",
		"an earlier transaction hasn't ended yet"} {
		err := table.Sync(context.Background(), everything())
		if !errors.Is(err, nft.ErrUnknownOutcome) || !strings.Contains(err.Error(), why) {
			t.Fatalf("Sync, of which is to be said that %s: %v", why, err)
		}
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
	before := n.Nft("list", "table", "inet", nft.TableName)
	bad := nft.RangeElement(addr("10.0.0.3"), addr("10.0.0.9")) // overlaps
	err := table.Apply(context.Background(), nft.Patch{
		Chains: map[string]*nft.Chain{"new": {Name: "new", Rules: []nft.Rule{rule(drop)}}},
		Sets: map[string]*nft.SetPatch{
			"set/blocks4": {Put: map[nft.Element]nft.Verdict{bad: {}}},
			"set/new": {Create: &nft.Set{Name: "set/new", Key: []nft.Field{nft.DstAddr4},
				Interval: true, Elements: map[nft.Element]nft.Verdict{
					bad: {}, nft.RangeElement(addr("10.0.0.9"), addr("10.0.0.10")): {},
				}}},
		},
	})
	if !errors.Is(err, nft.ErrRefused) || errors.Is(err, nft.ErrUnknownOutcome) {
		t.Fatalf("Apply: %v", err)
	}
	if !strings.Contains(err.Error(), "adding elements to set set/new") {
		t.Errorf("the error doesn't name the set: %v", err)
	}
	if after := n.Nft("list", "table", "inet", nft.TableName); after != before {
		t.Errorf("a refused transaction left\n%s\nbefore\n%s", after, before)
	}
	// The patch counts as desired; a patch that mends it is enough.
	mustApply(t, table, nft.Patch{Sets: map[string]*nft.SetPatch{
		"set/blocks4": {Remove: map[nft.Element]struct{}{bad: {}}},
		"set/new":     {Remove: map[nft.Element]struct{}{bad: {}}},
	}})
	mustMatch(t, table)
	if !strings.Contains(n.Nft("list", "table", "inet", nft.TableName), "chain new {") {
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
		patch nft.Patch
	}{
		{"unknown set",
			nft.Patch{Sets: map[string]*nft.SetPatch{"none": {
				Put: map[nft.Element]nft.Verdict{{First: "1234"}: {}}}}}},
		{"other name", nft.Patch{Chains: map[string]*nft.Chain{"a": {Name: "b"}}}},
		{"key of another set",
			nft.Patch{Sets: map[string]*nft.SetPatch{"set/hosts4": {
				Put: map[nft.Element]nft.Verdict{nft.AddrElement(addr("::1")): {}}}}}},
		{"range in a plain set",
			nft.Patch{
				Sets: map[string]*nft.SetPatch{
					"set/hosts4": {
						Put: map[nft.Element]nft.Verdict{
							nft.RangeElement(addr("1.1.1.1"), addr("1.1.1.2")): {}}}}}},
		{"reversed range",
			nft.Patch{
				Sets: map[string]*nft.SetPatch{
					"set/blocks4": {
						Put: map[nft.Element]nft.Verdict{
							nft.RangeElement(addr("1.1.1.2"), addr("1.1.1.1")): {}}}}}},
		{"set without verdicts",
			nft.Patch{
				Sets: map[string]*nft.SetPatch{
					"set/hosts4": {
						Put: map[nft.Element]nft.Verdict{nft.AddrElement(addr("1.1.1.1")): {
							Kind: nft.Drop}}}}}},
		{"map without verdict",
			nft.Patch{Sets: map[string]*nft.SetPatch{"map/addr4": {
				Put: map[nft.Element]nft.Verdict{nft.AddrElement(addr("1.1.1.1")): {}}}}}},
		{"wrong family",
			nft.Patch{Chains: map[string]*nft.Chain{"a": {Name: "a",
				Rules: []nft.Rule{rule(nft.MatchAddr{Field: nft.SrcAddr4, Addr: addr("::1")})}}}}},
		{"empty ports",
			nft.Patch{Chains: map[string]*nft.Chain{"a": {
				Name: "a", Rules: []nft.Rule{rule(nft.MatchPort{Proto: 6, First: 2, Last: 1})}}}}},
		{"long interface",
			nft.Patch{
				Chains: map[string]*nft.Chain{
					"a": {Name: "a",
						Rules: []nft.Rule{
							rule(nft.MatchIface{Field: nft.InIface, Name: "slup567890123456"})}}}}},
		{"jump nowhere",
			nft.Patch{Chains: map[string]*nft.Chain{"a": {Name: "a",
				Rules: []nft.Rule{rule(nft.Do{Verdict: nft.Verdict{Kind: nft.Jump}})}}}}},
		{"no fields",
			nft.Patch{Chains: map[string]*nft.Chain{"a": {
				Name: "a", Rules: []nft.Rule{rule(nft.InSet{Set: "set/hosts4"})}}}}},
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

// A canceled context stops between two transactions, and what is done by then is no harm: see
// TestNothingLeaks. The next call goes on.
func TestCancel(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{MaxMessages: 10})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := table.Sync(ctx, big(20, 5, 10)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Sync: %v", err)
	}
	mustApply(t, table, nft.Patch{})
	mustMatch(t, table)
}

// Somebody who writes to another table all the time (kube-proxy) keeps nobody from reading ours.
func TestOthersKeepWriting(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, big(300, 3, 3000))

	other, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(n.NS.Fd())))
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
	out := n.Nft("list", "table", "inet", nft.TableName)
	if got := strings.Count(out, "\tchain pod/ns/web-"); got != chains {
		t.Errorf("%d chains of %d", got, chains)
	}
	if got := strings.Count(out, "tcp dport"); got != chains*rules {
		t.Errorf("%d rules of %d", got, chains*rules)
	}
	if got := strings.Count(out, " : jump pod/ns/web-"); got != chains {
		t.Errorf("%d map elements of %d", got, chains)
	}
	set := n.Nft("list", "set", "inet", nft.TableName, "set/hosts")
	if got := strings.Count(set, ",") + 1; got != elements {
		t.Errorf("%d elements of %d", got, elements)
	}
	// All of it in the one transaction that is never split: every rule changes, and every element
	// leaves.
	mustSync(t, table, big(chains, 1, 0))
	mustMatch(t, table)
	mustSync(t, table, nft.NewRuleset())
	mustMatch(t, table)
}

// Elements whose verdicts have the longest names, and ranges, stay below the 64 KiB that an
// attribute holds.
func TestLongElementsArrive(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	r := nft.NewRuleset()
	m := r.AddSet(&nft.Set{Name: "m", Key: []nft.Field{nft.SrcAddr6, nft.InIface}, Verdicts: true})
	ranges := r.AddSet(&nft.Set{Name: "ranges", Key: []nft.Field{nft.SrcAddr6}, Interval: true})
	ports := r.AddSet(&nft.Set{Name: "ports",
		Key: []nft.Field{nft.DstAddr6, nft.L4Proto, nft.DstPort}, Interval: true})
	for i := range 1500 {
		c := r.AddChain(&nft.Chain{Name: nft.Name("pod", strings.Repeat("n", 300), fmt.Sprint(i))})
		if len(c.Name) != nft.MaxName {
			t.Fatalf("name of %d bytes", len(c.Name))
		}
		a := netip.AddrFrom16([16]byte{0: 0xfd, 12: byte(i >> 8), 13: byte(i)})
		last := netip.AddrFrom16([16]byte{0: 0xfd, 12: byte(i >> 8), 13: byte(i), 15: 9})
		m.Elements[nft.AddrIfaceElement(a, "slup0123456789a")] = nft.JumpTo(c.Name)
		ranges.Elements[nft.RangeElement(a, last)] = nft.Verdict{}
		e := nft.AddrProtoPortElement(a, 6, 80)
		e.Last = nft.AddrProtoPortElement(last, 6, 90).First
		ports.Elements[e] = nft.Verdict{}
	}
	mustSync(t, table, r)
	mustMatch(t, table)
	got := strings.Count(n.Nft("list", "map", "inet", nft.TableName, "m"), " : jump pod/nnn")
	if got != 1500 {
		t.Errorf("%d elements of 1500", got)
	}
}
