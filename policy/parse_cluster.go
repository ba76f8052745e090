package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/sluice-net/sluice/selector"
)

// ParseCluster reads a ClusterNetworkPolicy. Like Parse it never fails. What can't be read fails
// closed, as the API's types say: a rule that accepts matches nothing then, one that denies or
// passes denies everything. If whom the policy is for can't be read, it is for more pods, and its
// rules only deny.
//
// An Accept rule's domainNames match nothing: they aren't supported.
func ParseCluster(cnp *networkpolicyapi.ClusterNetworkPolicy) Policy {
	return parseCluster(cnp, nil)
}

func parseCluster(cnp *networkpolicyapi.ClusterNetworkPolicy, unknown unknownFields) Policy {
	p := &clusterParser{unknown: unknown}
	out := Policy{Key: Key{Name: cnp.Name}, Priority: cnp.Spec.Priority}
	tier := p.tier(&out, cnp.Spec.Tier)
	subject := p.subject(&out, specPath.Child("subject"), cnp.Spec.Subject)
	if len(p.unknown.within("subject")) > 0 {
		out.Subject = selector.Selector{} // who else it is for isn't known
	}
	if cnp.Spec.Priority < 0 || cnp.Spec.Priority > maxPriority {
		p.problem(specPath.Child("priority"), cnp.Spec.Priority,
			"a number from 0 to 1000; it is ordered as it is")
	}
	p.onlyDeny = !tier || !subject || p.hasUnknown()
	ingress, egress := specPath.Child("ingress"), specPath.Child("egress")
	for i, in := range cnp.Spec.Ingress {
		at := ingress.Index(i)
		peers := make([]clusterPeer, len(in.From))
		for j, peer := range in.From {
			peers[j] = clusterPeer{at: at.Child("from").Index(j), namespaces: peer.Namespaces,
				pods: peer.Pods}
		}
		p.rule(&out.Ingress, Rule{Index: i, Name: in.Name}, at,
			clusterRule{in.Action, at.Child("from"), peers, in.Protocols})
	}
	for i, in := range cnp.Spec.Egress {
		at := egress.Index(i)
		peers := make([]clusterPeer, len(in.To))
		for j, peer := range in.To {
			peers[j] = clusterPeer{at.Child("to").Index(j), peer.Namespaces, peer.Pods, peer.Nodes,
				peer.Networks, peer.DomainNames}
		}
		p.rule(&out.Egress, Rule{Index: i, Name: in.Name}, at,
			clusterRule{in.Action, at.Child("to"), peers, in.Protocols})
	}
	p.limitTier(&out)
	out.Problems = p.allProblems(specPath)
	return out
}

// maxPriority is the highest priority that an API server lets in.
const maxPriority = 1000

type clusterParser struct {
	limits
	onlyDeny bool // whom or when the policy is for isn't known for sure
	unknown  unknownFields
}

// hasUnknown reports whether a field that isn't of a rule isn't known.
func (p *clusterParser) hasUnknown() bool {
	unknown := p.unknown.outside()
	for _, name := range unknown {
		p.problem(specPath.Child(name), "an unknown field",
			"fields of v1beta1; its rules only deny")
	}
	return len(unknown) > 0
}

// hasUnknownIn reports whether a field of a rule isn't known.
func (p *clusterParser) hasUnknownIn(r *Rule, at *field.Path) bool {
	unknown := p.unknown.within(strings.TrimPrefix(at.String(), specPath.String()+"."))
	for _, name := range unknown {
		p.problem(specPath.Child(name), "an unknown field", "fields of v1beta1; "+closed(r))
	}
	return len(unknown) > 0
}

// tier reads spec.tier. What it can't read is asked first.
func (p *clusterParser) tier(out *Policy, in networkpolicyapi.Tier) (ok bool) {
	switch in {
	case networkpolicyapi.AdminTier:
		out.Tier = TierAdmin
	case networkpolicyapi.BaselineTier:
		out.Tier = TierBaseline
	default:
		p.problem(specPath.Child("tier"), in,
			"Admin or Baseline; the policy is asked first, and its rules only deny")
		out.Priority = math.MinInt32
		return false
	}
	return true
}

// subject reads spec.subject. What it can't read matches every pod.
func (p *clusterParser) subject(out *Policy, at *field.Path,
	in networkpolicyapi.ClusterNetworkPolicySubject) (ok bool) {
	switch {
	case (in.Namespaces == nil) == (in.Pods == nil):
		p.problem(at, fmt.Sprintf("%d fields", count(in.Namespaces != nil, in.Pods != nil)),
			"one of namespaces and pods; the policy is for all pods, and its rules only deny")
		return false
	case in.Namespaces != nil:
		out.Subject.Namespaces, ok = p.labels(at.Child("namespaces"), in.Namespaces)
		return ok
	}
	out.Subject, ok = p.namespacedPod(at.Child("pods"), in.Pods)
	return ok
}

func (p *clusterParser) namespacedPod(at *field.Path,
	in *networkpolicyapi.NamespacedPod) (out selector.Selector, ok bool) {
	var pods bool
	out.Namespaces, ok = p.labels(at.Child("namespaceSelector"), &in.NamespaceSelector)
	out.Pods, pods = p.labels(at.Child("podSelector"), &in.PodSelector)
	return out, ok && pods
}

// clusterRule is what rules of both directions have.
type clusterRule struct {
	action    networkpolicyapi.ClusterNetworkPolicyRuleAction
	peersAt   *field.Path
	peers     []clusterPeer
	protocols []networkpolicyapi.ClusterNetworkPolicyProtocol
}

// rule adds a rule to a section, which it makes if there is none.
func (p *clusterParser) rule(section **Section, r Rule, at *field.Path, in clusterRule) {
	if *section == nil {
		*section = &Section{}
	}
	r.Verdict = p.action(at.Child("action"), in.action)
	if p.onlyDeny && r.Verdict == Pass {
		r.Verdict = Deny
	}
	peers := p.peers(&r, in)
	ports := p.protocols(&r, at.Child("protocols"), in.protocols)
	named := p.namesHavePods(&r, at.Child("protocols"))
	unknown := p.hasUnknownIn(&r, at)
	if !peers || !ports || !named || unknown || p.onlyDeny && r.Verdict == Accept {
		r.close()
	}
	(*section).Rules = append((*section).Rules, r)
}

// close makes a rule that can't be read as a whole match nothing, or deny everything.
func (r *Rule) close() {
	*r = Rule{Index: r.Index, Name: r.Name, Verdict: r.Verdict}
	if r.Verdict != Accept {
		r.Verdict, r.AnyPeer, r.AnyPort = Deny, true, true
	}
}

func (p *clusterParser) action(at *field.Path,
	in networkpolicyapi.ClusterNetworkPolicyRuleAction) Verdict {
	switch in {
	case networkpolicyapi.ClusterNetworkPolicyRuleActionAccept:
		return Accept
	case networkpolicyapi.ClusterNetworkPolicyRuleActionDeny:
		return Deny
	case networkpolicyapi.ClusterNetworkPolicyRuleActionPass:
		return Pass
	}
	p.problem(at, in, "Accept, Deny or Pass; the rule denies")
	return Deny
}

// peers reads the peers of a rule into it; ok is false if the rule has to be closed.
func (p *clusterParser) peers(r *Rule, in clusterRule) (ok bool) {
	if len(in.peers) == 0 {
		p.problem(in.peersAt, "none", "at least one peer; "+closed(r))
		return false
	}
	ok = true
	seen := map[string]bool{}
	for i := range in.peers {
		parsed, readable := p.peer(r, &in.peers[i])
		ok = ok && readable
		for _, peer := range parsed {
			if text := peer.String(); !seen[text] {
				seen[text] = true
				r.Peers = append(r.Peers, peer)
			}
		}
	}
	return ok
}

// closed says for people what becomes of a rule that can't be read.
func closed(r *Rule) string {
	if r.Verdict == Accept {
		return "the rule matches nothing"
	}
	return "the rule denies everything"
}

// protocols reads what a rule says of protocols and ports; ok is false if it has to be closed.
func (p *clusterParser) protocols(r *Rule, at *field.Path,
	in []networkpolicyapi.ClusterNetworkPolicyProtocol) (ok bool) {
	if len(in) == 0 {
		r.AnyPort = true
		return true
	}
	ok = true
	var ranges []selector.PortRange
	for i := range in {
		ports, names, readable := p.protocol(r, at.Index(i), &in[i])
		ok = ok && readable
		ranges, r.Named = append(ranges, ports...), append(r.Named, names...)
	}
	slices.SortFunc(r.Named, NamedPort.Compare)
	r.Ports, r.Named = selector.MergePorts(ranges), slices.Compact(r.Named)
	return ok
}

// protocol reads one item. One without a port that is known here has a field that isn't.
func (p *clusterParser) protocol(r *Rule, at *field.Path,
	in *networkpolicyapi.ClusterNetworkPolicyProtocol,
) (ports []selector.PortRange, names []NamedPort, ok bool) {
	set := count(in.TCP != nil, in.UDP != nil, in.SCTP != nil, in.DestinationNamedPort != "")
	if set != 1 {
		p.problem(at, fmt.Sprintf("%d fields", set),
			"one of tcp, udp, sctp, destinationNamedPort; "+closed(r))
		return nil, nil, false
	}
	switch {
	case in.TCP != nil:
		return p.ports(r, at.Child("tcp"), ProtocolTCP, in.TCP.DestinationPort)
	case in.UDP != nil:
		return p.ports(r, at.Child("udp"), ProtocolUDP, in.UDP.DestinationPort)
	case in.SCTP != nil:
		return p.ports(r, at.Child("sctp"), ProtocolSCTP, in.SCTP.DestinationPort)
	}
	name := in.DestinationNamedPort
	if problems := validation.IsValidPortName(name); len(problems) > 0 {
		p.problem(at.Child("destinationNamedPort"), name,
			"a port name: "+strings.Join(problems, ", ")+"; "+closed(r))
		return nil, nil, false
	}
	return nil, []NamedPort{{ProtocolTCP, name}, {ProtocolUDP, name}, {ProtocolSCTP, name}}, true
}

func (p *clusterParser) ports(r *Rule, at *field.Path, protocol uint8,
	in *networkpolicyapi.Port) (ports []selector.PortRange, names []NamedPort, ok bool) {
	at = at.Child("destinationPort")
	if in == nil || (in.Number == 0) == (in.Range == nil) {
		p.problem(at, "neither or both", "one of number and range; "+closed(r))
		return nil, nil, false
	}
	first, last := in.Number, in.Number
	if in.Range != nil {
		first, last = in.Range.Start, in.Range.End
	}
	if first < 1 || last > maxPort || last < first {
		p.problem(at, fmt.Sprintf("%d-%d", first, last),
			"numbers from 1 to 65535, the first not above the last; "+closed(r))
		return nil, nil, false
	}
	//nolint:gosec // bounded
	return []selector.PortRange{{Protocol: protocol, First: uint16(first), Last: uint16(last)}},
		nil, true
}

// namesHavePods refuses names of ports beside peers that have none.
func (p *clusterParser) namesHavePods(r *Rule, at *field.Path) (ok bool) {
	hasBlocks := slices.ContainsFunc(r.Peers, func(p Peer) bool { return p.Block != nil })
	if len(r.Named) > 0 && hasBlocks {
		p.problem(at, "destinationNamedPort", "only numbers of ports beside networks; "+closed(r))
		return false
	}
	return true
}

// limitTier has a policy with too many clauses deny everything, in the directions that it governs.
func (p *clusterParser) limitTier(out *Policy) {
	n := out.Ingress.CountClauses() + out.Egress.CountClauses()
	if n <= MaxPolicyClauses {
		return
	}
	p.problem(specPath, fmt.Sprintf("%d rules, counted for each kind of peers and ports", n),
		fmt.Sprintf("at most %d of them in one policy; it denies everything", MaxPolicyClauses))
	for _, s := range []*Section{out.Ingress, out.Egress} {
		if s != nil {
			s.Rules = []Rule{{Verdict: Deny, AnyPeer: true, AnyPort: true}}
		}
	}
}
