package ruleset_test

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/randomcluster"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// TestWhatKernelsGetWrong holds the plans of random events to the rules by which bugs of kernels
// are avoided (docs/kernels.md). A set of ranges gets its elements in the transactions that make
// it, and never changes; one of several fields has the ports first. No set at all is deleted and
// made anew in one transaction. There are no timeouts: no operation of nft can say one.
func TestWhatKernelsGetWrong(t *testing.T) {
	t.Parallel()
	var seen sets
	rapid.Check(t, func(t *rapid.T) {
		world := randomcluster.Options(t)
		c, w := cluster.New(world), randomcluster.NewWorld(world)
		cfg := ruleset.Config{}
		if world.PolicyOnly {
			cfg.PodRanges = drawRanges(t)
		} else if rapid.Bool().Draw(t, "network") {
			cfg.Network = ruleworld.DrawNetwork(t)
		}
		r, have := ruleset.NewRenderer(cfg), nft.NewRuleset()
		seen.apply(t, have, nft.Diff(have, r.Ruleset(c)))
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			w.Event(t, c)
			if rapid.Bool().Draw(t, "changed") {
				if cfg.Network.Enabled() {
					cfg.Network = ruleworld.DrawNetwork(t)
				} else if world.PolicyOnly {
					cfg.PodRanges = drawRanges(t)
				}
				r.SetNetwork(cfg.Network, cfg.PodRanges)
			}
			if rapid.IntRange(0, 3).Draw(t, "render") == 0 {
				seen.apply(t, have, r.Patch(c, c.Take()))
			}
		}
		seen.apply(t, have, r.Patch(c, c.Take()))
	})
	outer := t
	rapid.Check(t, func(t *rapid.T) { // random clusters have few rules of several ports
		w := ruleworld.New(outer)
		for range rapid.IntRange(1, 10).Draw(t, "edits") {
			np := ruleworld.MustDecode[networkingv1.NetworkPolicy](outer,
				`{"metadata":{"namespace":"dev","name":"ports"},"spec":{"podSelector":{},"ingress":[{}]}}`)
			for range rapid.IntRange(0, 4).Draw(t, "ports") {
				first, protocol := rapid.Int32Range(1, 9).Draw(t, "first"),
					rapid.SampledFrom([]corev1.Protocol{"TCP", "UDP"}).Draw(t, "protocol")
				last := first + rapid.SampledFrom([]int32{0, 1, 40}).Draw(t, "more")
				np.Spec.Ingress[0].Ports = append(np.Spec.Ingress[0].Ports,
					networkingv1.NetworkPolicyPort{Protocol: &protocol, EndPort: &last,
						Port: &intstr.IntOrString{IntVal: first}})
			}
			w.Cluster.SetPolicy(policy.Parse(&np))
			seen.apply(t, w.Have, w.Render.Patch(w.Cluster, w.Cluster.Take()))
		}
	})
	want := 100
	if testing.Short() { // fewer random events
		want = 10
	}
	if seen.edits < want || seen.severalRanges < want || seen.replaced < want {
		t.Errorf("only %d edits of sets were seen, %d sets of several fields with ranges, and %d "+
			"of one field that another replaced", seen.edits, seen.severalRanges, seen.replaced)
	}
}

func drawRanges(t *rapid.T) []netip.Prefix {
	return rapid.SliceOfDistinct(rapid.SampledFrom([]netip.Prefix{
		netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("10.88.1.0/24"),
		netip.MustParsePrefix("fd88::/64")}), rapid.ID).Draw(t, "ranges")
}

// sets are the numbers of what was seen; replaced are sets of ranges of one field that went.
type sets struct{ edits, severalRanges, replaced int }

// apply plans a patch, looks at each transaction, and has them done.
func (s *sets) apply(t *rapid.T, have *nft.Ruleset, p nft.Patch) {
	b := nft.Plan(have, p)
	for _, part := range b.Parts() {
		s.check(t, have, part.Ops)
	}
	have.Merge(p)
}

func (s *sets) check(t *rapid.T, have *nft.Ruleset, transaction []nft.Op) {
	made := map[string]bool{}
	for _, op := range transaction {
		if op.Set == nil {
			continue
		}
		name, key := op.Set.Name, op.Set.Key
		ranges, severalRanges := op.Set.Interval, op.Set.Interval && len(key) > 1
		if op.Kind == nft.DeleteSet && ranges && !severalRanges {
			s.replaced++
		}
		if op.Kind == nft.AddSet {
			made[name] = true
			if have.Sets[name] != nil {
				t.Fatalf("%s is deleted and made anew in one transaction", name)
			}
			if severalRanges {
				s.severalRanges++
			}
			if severalRanges && key[0] != nft.DstPort {
				t.Fatalf("%s has ranges in %v: the field with the most masks isn't the first",
					name, key)
			}
		}
		if op.Kind == nft.SetElements {
			s.edits++
			if ranges && (!made[name] || len(op.Leave) > 0) {
				t.Fatalf("%s is changed: %v", name, op)
			}
		}
	}
}
