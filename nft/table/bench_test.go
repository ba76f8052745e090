package table

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-net/sluice/nft"
)

// manySets is a ruleset of n sets with some elements each.
func manySets(n int) *nft.Ruleset {
	r := nft.NewRuleset()
	for i := range n {
		s := r.AddSet(&nft.Set{Name: fmt.Sprintf("set/%d", i), Key: []nft.Field{nft.SrcAddr4}})
		for j := range 10 {
			s.Elements[nft.AddrElement(nthAddr(j))] = nft.Verdict{}
		}
	}
	return r
}

// oneElement applies patches of one element, joining and leaving in turn, and returns the time for
// each.
func oneElement(b *testing.B, table *Table, n int) time.Duration {
	b.Helper()
	e := nft.AddrElement(addr("192.0.2.1"))
	start := time.Now()
	for i := range n {
		sp := &nft.SetPatch{Put: map[nft.Element]nft.Verdict{e: {}}}
		if i%2 == 1 {
			sp = &nft.SetPatch{Remove: map[nft.Element]struct{}{e: {}}}
		}
		err := table.Apply(context.Background(),
			nft.Patch{Sets: map[string]*nft.SetPatch{"set/0": sp}})
		if err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / time.Duration(n)
}

// BenchmarkApplyOneElement reports what a change of one element costs among 2,000 sets, and how
// often it costs what it does among 10: it should be about 1.
func BenchmarkApplyOneElement(b *testing.B) {
	small, large := newNamespace(b).open(Options{}), newNamespace(b).open(Options{})
	mustSync(b, small, manySets(10))
	mustSync(b, large, manySets(2000))
	oneElement(b, small, 100)
	oneElement(b, large, 100)
	b.ResetTimer()
	n := b.N + b.N%2
	few, many := oneElement(b, small, n), oneElement(b, large, n)
	b.ReportMetric(float64(few.Nanoseconds()), "ns/apply-10-sets")
	b.ReportMetric(float64(many.Nanoseconds()), "ns/apply-2000-sets")
	b.ReportMetric(float64(many)/float64(few), "ratio")
}

// BenchmarkSyncBig installs 1,000 chains of 5 rules and 10,000 elements.
func BenchmarkSyncBig(b *testing.B) {
	table := newNamespace(b).open(Options{})
	for b.Loop() {
		b.StopTimer()
		mustSync(b, table, nft.NewRuleset())
		want := big(1000, 5, 10000)
		b.StartTimer()
		mustSync(b, table, want)
	}
}

// BenchmarkSyncNothing reads the same ruleset back and finds it as wanted; then the same with an
// empty table.
func BenchmarkSyncNothing(b *testing.B) {
	for _, c := range []struct {
		name string
		want func() *nft.Ruleset
	}{
		{"big", func() *nft.Ruleset { return big(1000, 5, 10000) }},
		{"2000 sets", func() *nft.Ruleset { return manySets(2000) }},
		{"empty", nft.NewRuleset},
	} {
		b.Run(c.name, func(b *testing.B) {
			table := newNamespace(b).open(Options{})
			want := c.want()
			mustSync(b, table, want)
			flushes := table.flushes
			for b.Loop() {
				mustSync(b, table, want)
			}
			if table.flushes != flushes {
				b.Errorf("%d transactions", table.flushes-flushes)
			}
		})
	}
}

// BenchmarkPlanAddPod plans one new pod among 2,000.
func BenchmarkPlanAddPod(b *testing.B) {
	have := big(2000, 5, 10000)
	c := &nft.Chain{Name: "pod/new",
		Rules: []nft.Rule{rule(jump("pod/ns/web-0/egress")), rule(drop)}}
	p := nft.Patch{
		Chains: map[string]*nft.Chain{c.Name: c},
		Sets: map[string]*nft.SetPatch{
			"map/pods": {
				Put: map[nft.Element]nft.Verdict{
					nft.AddrIfaceElement(addr("192.0.2.1"), "slupnew"): nft.JumpTo(c.Name)}},
			"set/hosts": {Put: map[nft.Element]nft.Verdict{nft.AddrElement(addr("192.0.2.1")): {}}},
		},
	}
	for b.Loop() {
		if plan := nft.Plan(have, p); len(plan.Ops()) == 0 {
			b.Fatal("nothing to do")
		}
	}
}
