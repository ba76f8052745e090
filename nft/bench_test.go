package nft

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// manySets is a ruleset of n sets with some elements each.
func manySets(n int) *Ruleset {
	r := NewRuleset()
	for i := range n {
		s := r.AddSet(&Set{Name: fmt.Sprintf("set/%d", i), Key: []Field{SrcAddr4}})
		for j := range 10 {
			s.Elements[AddrElement(nthAddr(j))] = Verdict{}
		}
	}
	return r
}

// oneElement applies patches of one element, joining and leaving in turn, and
// returns the time for each.
func oneElement(b *testing.B, table *Table, n int) time.Duration {
	b.Helper()
	e := AddrElement(addr("192.0.2.1"))
	start := time.Now()
	for i := range n {
		sp := &SetPatch{Put: map[Element]Verdict{e: {}}}
		if i%2 == 1 {
			sp = &SetPatch{Remove: map[Element]struct{}{e: {}}}
		}
		if err := table.Apply(context.Background(), Patch{Sets: map[string]*SetPatch{"set/0": sp}}); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / time.Duration(n)
}

// BenchmarkApplyOneElement reports what a change of one element costs among
// 2,000 sets, and how often it costs what it does among 10: it should be
// about 1.
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
		mustSync(b, table, NewRuleset())
		want := big(1000, 5, 10000)
		b.StartTimer()
		mustSync(b, table, want)
	}
}

// BenchmarkSyncNothing reads the same ruleset back and finds it as wanted;
// then the same with an empty table.
func BenchmarkSyncNothing(b *testing.B) {
	for _, c := range []struct {
		name string
		want func() *Ruleset
	}{
		{"big", func() *Ruleset { return big(1000, 5, 10000) }},
		{"2000 sets", func() *Ruleset { return manySets(2000) }},
		{"empty", NewRuleset},
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
	c := &Chain{Name: "pod/new", Rules: []Rule{rule(jump("pod/ns/web-0/egress")), rule(drop)}}
	p := Patch{
		Chains: map[string]*Chain{c.Name: c},
		Sets: map[string]*SetPatch{
			"map/pods":  {Put: map[Element]Verdict{AddrIfaceElement(addr("192.0.2.1"), "slupnew"): JumpTo(c.Name)}},
			"set/hosts": {Put: map[Element]Verdict{AddrElement(addr("192.0.2.1")): {}}},
		},
	}
	for b.Loop() {
		if Plan(have, p).Empty() {
			b.Fatal("nothing to do")
		}
	}
}
