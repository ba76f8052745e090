package policy

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/selector"
)

// peer reads one item of from or to; ok is false when it is lost.
func (p *parser) peer(at *field.Path, in networkingv1.NetworkPolicyPeer) (Peer, bool) {
	selects := in.PodSelector != nil || in.NamespaceSelector != nil
	switch {
	case in.IPBlock != nil && selects:
		p.problem(at, "ipBlock and a selector", "either ipBlock or selectors")
		return Peer{}, false
	case in.IPBlock != nil:
		return p.block(at.Child("ipBlock"), in.IPBlock)
	case selects:
		return p.selectorPeer(at, in)
	}
	p.problem(at, "{}", "one of ipBlock, podSelector, namespaceSelector")
	return Peer{}, false
}

// selectorPeer: only podSelector means the policy's own namespace, only namespaceSelector all pods
// of those namespaces, both mean both.
func (p *parser) selectorPeer(at *field.Path, in networkingv1.NetworkPolicyPeer) (Peer, bool) {
	s := selector.Selector{}
	ok := true
	if in.NamespaceSelector == nil {
		s.Namespace = p.namespace
	} else {
		s.Namespaces, ok = p.labels(at.Child("namespaceSelector"), in.NamespaceSelector)
	}
	if in.PodSelector != nil {
		pods, readable := p.labels(at.Child("podSelector"), in.PodSelector)
		s.Pods, ok = pods, ok && readable
	}
	return Peer{Selector: &s}, ok
}

// block reads an ipBlock. A bad except costs the whole block, since without it the block would
// allow more than was meant.
func (p *parser) block(at *field.Path, in *networkingv1.IPBlock) (Peer, bool) {
	cidr, err := selector.ParseCIDR(in.CIDR)
	if err != nil {
		p.problem(at.Child("cidr"), in.CIDR, "an IPv4 or IPv6 prefix such as 10.0.0.0/8")
		return Peer{}, false
	}
	b := &Block{CIDR: cidr}
	for i, s := range in.Except {
		except, err := selector.ParseCIDR(s)
		if err != nil || !selector.Within(except, cidr) {
			p.problem(at.Child("except").Index(i), s,
				"a prefix within "+cidr.String()+"; the whole ipBlock is ignored")
			return Peer{}, false
		}
		b.Except = append(b.Except, except)
	}
	return Peer{Block: b}, true
}
