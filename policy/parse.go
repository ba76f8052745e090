package policy

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/selector"
)

// Parse reads a NetworkPolicy. It never fails: what can't be read is listed in Problems and lost,
// item by item, in the direction of denying. An object from an API server can hold such fields,
// since updates keep old values that newer validation would refuse.
func Parse(np *networkingv1.NetworkPolicy) Policy {
	p := &parser{namespace: np.Namespace}
	spec := specPath
	out := Policy{
		Key:  Key{Namespace: np.Namespace, Name: np.Name},
		Tier: TierNetworkPolicy,
		Subject: selector.Selector{
			Namespace: np.Namespace,
			Pods:      p.subject(spec.Child("podSelector"), np.Spec.PodSelector),
		},
	}
	ingress, egress := p.types(spec, np.Spec)
	if ingress {
		out.Ingress = p.ingress(spec.Child("ingress"), np.Spec.Ingress)
	} else if len(np.Spec.Ingress) > 0 {
		p.problem(spec.Child("ingress"), "rules", "Ingress in policyTypes; the rules are ignored")
	}
	if egress {
		out.Egress = p.egress(spec.Child("egress"), np.Spec.Egress)
	} else if len(np.Spec.Egress) > 0 {
		p.problem(spec.Child("egress"), "rules", "Egress in policyTypes; the rules are ignored")
	}
	p.limitClauses(&out)
	out.Problems = p.allProblems(spec)
	return out
}

var specPath = field.NewPath("spec")

// parser collects the problems of one policy.
type parser struct {
	namespace string
	limits
}

// types tells which directions are governed. An unknown type is lost; when nothing readable is left
// the list counts as absent, so the policy isolates.
func (p *parser) types(spec *field.Path, s networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	for i, t := range s.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			ingress = true
		case networkingv1.PolicyTypeEgress:
			egress = true
		default:
			p.problem(spec.Child("policyTypes").Index(i), t, "Ingress or Egress")
		}
	}
	if !ingress && !egress {
		return true, len(s.Egress) > 0
	}
	return ingress, egress
}

func (p *parser) ingress(at *field.Path, rules []networkingv1.NetworkPolicyIngressRule) *Section {
	s := &Section{}
	for i, r := range rules {
		s.Rules = append(s.Rules, p.rule(i, at.Index(i), "from", r.From, r.Ports))
	}
	return s
}

func (p *parser) egress(at *field.Path, rules []networkingv1.NetworkPolicyEgressRule) *Section {
	s := &Section{}
	for i, r := range rules {
		s.Rules = append(s.Rules, p.rule(i, at.Index(i), "to", r.To, r.Ports))
	}
	return s
}

func (p *parser) rule(index int, at *field.Path, peersField string,
	peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) Rule {
	r := Rule{Index: index, Verdict: Accept, AnyPeer: len(peers) == 0, AnyPort: len(ports) == 0}
	seen := map[string]bool{}
	for i, peer := range peers {
		parsed, ok := p.peer(at.Child(peersField).Index(i), peer)
		if ok && !seen[parsed.String()] {
			seen[parsed.String()] = true
			r.Peers = append(r.Peers, parsed)
		}
	}
	r.Ports, r.Named = p.ports(at.Child("ports"), ports)
	return r
}

// subject reads spec.podSelector. A requirement that can't be read matches every pod: isolating too
// many is the closed side.
func (p *parser) subject(at *field.Path, s metav1.LabelSelector) selector.Labels {
	l, _ := p.labels(at, &s)
	return l
}
