package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// fuzzFlows are flows between all ends of the world, and to and from the borders of the policy's
// blocks, at ports where something could change.
func fuzzFlows(np *networkingv1.NetworkPolicy) []policy.Flow {
	var ends, dev []netip.Addr // dev: those of the pods that the policy can select
	for _, in := range cases.Pods() {
		addresses := policy.PodFrom(in).Addresses
		ends = append(ends, addresses...)
		if in.Namespace == "dev" {
			dev = append(dev, addresses...)
		}
	}
	for name, addresses := range cases.Hosts {
		if name != cases.NodeName { // whatever it sends is allowed
			ends = append(ends, netip.MustParseAddr(addresses[0]),
				netip.MustParseAddr(addresses[1]))
		}
	}
	for _, p := range peersOf(np) {
		if p.IPBlock == nil {
			continue
		}
		for _, text := range append(p.IPBlock.Except, p.IPBlock.CIDR) {
			if block, err := selector.ParseCIDR(text); err == nil && len(ends) < 20 {
				ends = append(ends, block.Addr(), block.Addr().Prev())
			}
		}
	}
	ends = slices.DeleteFunc(ends, func(a netip.Addr) bool {
		return !a.IsValid() || a == netip.MustParseAddr(cases.Hosts[cases.NodeName][0])
	})
	var out []policy.Flow
	for _, src := range ends {
		for _, dst := range ends {
			if src.Is4() != dst.Is4() || src == dst ||
				!slices.Contains(dev, src) && !slices.Contains(dev, dst) {
				continue
			}
			for _, port := range []uint16{80, 81} {
				out = append(out, policy.Flow{Source: src, Destination: dst,
					Protocol: policy.ProtocolTCP, Port: port})
			}
			out = append(out,
				policy.Flow{Source: src, Destination: dst, Protocol: policy.ProtocolUDP, Port: 80},
				policy.Flow{Source: src, Destination: dst, Protocol: 1})
		}
	}
	return out
}

func peersOf(np *networkingv1.NetworkPolicy) (out []networkingv1.NetworkPolicyPeer) {
	for _, r := range np.Spec.Ingress {
		out = append(out, r.From...)
	}
	for _, r := range np.Spec.Egress {
		out = append(out, r.To...)
	}
	return out
}

// pieces are the policies with one peer and one port each that the policy is the union of, as an
// item counts alone: what can't be read must not change what the others mean.
func pieces(np *networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	with := func(change func(s *networkingv1.NetworkPolicySpec)) {
		piece := np.DeepCopy()
		piece.Spec.Ingress, piece.Spec.Egress = nil, nil
		piece.Spec.PolicyTypes = append(piece.Spec.PolicyTypes, directionsOf(np)...)
		change(&piece.Spec)
		out = append(out, piece)
	}
	each := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
		f func([]networkingv1.NetworkPolicyPeer, []networkingv1.NetworkPolicyPort)) {
		for i := range max(1, len(peers)) {
			for j := range max(1, len(ports)) {
				f(peers[min(i, len(peers)):min(i+1, len(peers))],
					ports[min(j, len(ports)):min(j+1, len(ports))])
			}
		}
	}
	for _, r := range np.Spec.Ingress {
		each(r.From, r.Ports,
			func(from []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
				with(func(s *networkingv1.NetworkPolicySpec) {
					s.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: from, Ports: ports}}
				})
			})
	}
	for _, r := range np.Spec.Egress {
		each(r.To, r.Ports,
			func(to []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
				with(func(s *networkingv1.NetworkPolicySpec) {
					s.Egress = []networkingv1.NetworkPolicyEgressRule{{To: to, Ports: ports}}
				})
			})
	}
	return out
}

// directionsOf are those that a policy isolates in, read without the parser.
func directionsOf(np *networkingv1.NetworkPolicy) (out []networkingv1.PolicyType) {
	for _, t := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress,
		networkingv1.PolicyTypeEgress} {
		if slices.Contains(np.Spec.PolicyTypes, t) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		out = append(out, networkingv1.PolicyTypeIngress)
		if len(np.Spec.Egress) > 0 {
			out = append(out, networkingv1.PolicyTypeEgress)
		}
	}
	return out
}

// FuzzMeaning adds any policy to the world. It isolates whom it would isolate without what can't be
// read; a piece of it that can't be read allows nothing; and it allows what one of its pieces
// allows.
func FuzzMeaning(f *testing.F) {
	f.Add(
		[]byte(`{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"192.0.2.0/24","except":["10.0.0.0/8"]}}]}]}`))
	for i, c := range cases.All() {
		if i%6 != 0 { // the corpus is also an ordinary test, and these have their own
			continue
		}
		policies, err := c.Render(cases.Addr)
		if err != nil {
			f.Fatal(err)
		}
		for _, np := range policies {
			spec, err := json.Marshal(np.Spec)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(spec)
		}
	}
	f.Fuzz(func(t *testing.T, spec []byte) {
		np := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "p"}}
		if len(spec) > 2000 || json.Unmarshal(spec, &np.Spec) != nil || len(pieces(np)) > 20 {
			return
		}
		flows := fuzzFlows(np)
		c := worldCluster()
		allowed := answers(c, np, flows)
		union := map[policy.Flow]map[policy.Direction]bool{}
		for _, piece := range pieces(np) {
			broken := false
			for _, p := range policy.Parse(piece).Problems {
				broken = broken || strings.HasPrefix(p.Field, "spec.ingress[") ||
					strings.HasPrefix(p.Field, "spec.egress[")
			}
			for flow, decisions := range answers(c, piece, flows) {
				for d, decision := range decisions {
					if broken && decision.By != nil {
						t.Errorf("a piece that can't be read allows %+v: %+v", flow, piece.Spec)
					}
					if union[flow] == nil {
						union[flow] = map[policy.Direction]bool{}
					}
					union[flow][d] = union[flow][d] || decision.By != nil
				}
			}
		}
		for flow, decisions := range allowed {
			for _, d := range policy.Directions {
				decision := decisions[d]
				if decision == nil || decision.Pod.Namespace != "dev" {
					continue
				}
				isolates := slices.Contains(directionsOf(np),
					map[policy.Direction]networkingv1.PolicyType{
						policy.Ingress: networkingv1.PolicyTypeIngress,
						policy.Egress:  networkingv1.PolicyTypeEgress,
					}[d])
				selects := len(np.Spec.PodSelector.MatchLabels)+
					len(np.Spec.PodSelector.MatchExpressions) == 0
				isolated := len(decision.Isolating) > 0
				if isolated && !isolates || selects && isolates && !isolated {
					t.Errorf("%s of %s: isolated %v", d, decision.Pod.Name, isolated)
				}
				if byPolicy := decision.By != nil; byPolicy != union[flow][d] {
					t.Errorf("%+v %s: the policy allows it: %v, one of its pieces: %v", flow, d,
						byPolicy, union[flow][d])
				}
			}
		}
	})
}

// answers are the decisions about flows, with this policy alone.
func answers(c *cluster.Cluster, np *networkingv1.NetworkPolicy,
	flows []policy.Flow) map[policy.Flow]map[policy.Direction]*cluster.Decision {
	c.SetPolicy(policy.Parse(np))
	out := map[policy.Flow]map[policy.Direction]*cluster.Decision{}
	for _, flow := range flows {
		a := c.Explain(flow)
		out[flow] = map[policy.Direction]*cluster.Decision{}
		if a.Ingress != nil {
			out[flow][policy.Ingress] = a.Ingress
		}
		if a.Egress != nil {
			out[flow][policy.Egress] = a.Egress
		}
	}
	return out
}

// TestHugePolicies: a rule is as many clauses as it means, whatever it lists, and what is told of a
// policy has an end.
func TestHugePolicies(t *testing.T) {
	t.Parallel()
	const many = 20_000
	rule := networkingv1.NetworkPolicyIngressRule{}
	for i := range many {
		cidr := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String() + "/32"
		rule.From = append(rule.From,
			networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
		name := intstr.FromString(fmt.Sprintf("p%d", i))
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: &name})
	}
	number := intstr.FromInt32(80)
	rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: &number})
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "huge"}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{rule,
		{From: rule.From[:1], Ports: rule.Ports[:1]}}
	p := policy.Parse(np)
	if clauses := p.Clauses(policy.Ingress); len(clauses) != 3 {
		t.Errorf(
			"%d clauses, want two for the first rule, by number and by name, and one for the "+
				"second", len(clauses))
	}
	if len(p.Problems) > 0 {
		t.Errorf("problems: %v", p.Problems)
	}

	long := strings.Repeat("x", 5_000)
	np.Spec.Ingress = nil
	for range many / 10 {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: long}}},
		})
	}
	p = policy.Parse(np)
	last := p.Problems[len(p.Problems)-1]
	if len(p.Problems) != 51 || last.Value != fmt.Sprintf("%d more fields", many/10-50) {
		t.Errorf("%d problems, the last %s", len(p.Problems), last)
	}
	for _, problem := range p.Problems {
		if len(problem.String()) > 1024 {
			t.Errorf("a problem of %d bytes: no Event takes it", len(problem.String()))
		}
	}
}
