package table

import (
	"context"
	"testing"

	"github.com/sluice-net/sluice/nft"
)

// skipRuleset has the server ask a tier, which denies whom its set doesn't skip, and then rules
// that allow the members of another set; a rule before them may deny all.
func (f *floodNet) skipRuleset(closed bool) *nft.Ruleset {
	src := []nft.Field{nft.SrcAddr4}
	rs := f.ruleset(1, &nft.Chain{Name: "pod/server", Rules: []nft.Rule{
		rule(nft.Do{Verdict: nft.JumpTo("tier")}), rule(nft.Do{Verdict: nft.JumpTo("next")}),
		rule(do(nft.Drop))}})
	rs.AddChain(&nft.Chain{Name: "tier", Rules: []nft.Rule{
		rule(nft.InSet{Fields: src, Set: "set/skips"}, do(nft.Return)), rule(do(nft.Drop))}})
	rs.AddChain(f.nextChain(closed))
	rs.AddSet(&nft.Set{Name: "set/skips", Key: src, Skip: true,
		Elements: map[nft.Element]nft.Verdict{nft.AddrElement(otherAddr): {}}})
	rs.AddSet(&nft.Set{Name: "set/next", Key: src,
		Elements: map[nft.Element]nft.Verdict{nft.AddrElement(clientAddr): {}}})
	return rs
}

func (f *floodNet) nextChain(closed bool) *nft.Chain {
	out := &nft.Chain{Name: "next", Rules: []nft.Rule{
		rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: "set/next"}, do(nft.Accept))}}
	if closed {
		out.Rules = append([]nft.Rule{rule(do(nft.Drop))}, out.Rules...)
	}
	return out
}

// member is a patch that makes the client a member, or takes it away.
func member(in bool) *nft.SetPatch {
	e := nft.AddrElement(clientAddr)
	if in {
		return &nft.SetPatch{Put: map[nft.Element]nft.Verdict{e: {}}}
	}
	return &nft.SetPatch{Remove: map[nft.Element]struct{}{e: {}}}
}

// TestFloodWhileSkipping: in one state the tier denies the client, in the other it skips that, and
// isn't allowed by what comes after it: by a set, or by a rule.
func TestFloodWhileSkipping(t *testing.T) {
	t.Run("by a set", func(t *testing.T) {
		each(t, noLimit, func(f *floodNet, n int) {
			f.must(f.table.Sync(context.Background(), f.skipRuleset(false)))
			f.underFlood(n, func(i int) error {
				return f.apply(nft.Patch{Sets: map[string]*nft.SetPatch{
					"set/skips": member(i%2 == 0), "set/next": member(i%2 == 1)}})
			})
		})
	})
	t.Run("by a rule", func(t *testing.T) {
		each(t, noLimit, func(f *floodNet, n int) {
			f.must(f.table.Sync(context.Background(), f.skipRuleset(false)))
			f.underFlood(n, func(i int) error {
				return f.apply(nft.Patch{
					Chains: map[string]*nft.Chain{"next": f.nextChain(i%2 == 0)},
					Sets:   map[string]*nft.SetPatch{"set/skips": member(i%2 == 0)}})
			})
		})
	})
}
