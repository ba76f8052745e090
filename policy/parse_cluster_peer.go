package policy

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/sluice-net/sluice/selector"
)

// clusterPeer is a peer of a ClusterNetworkPolicy, of either direction. Those of ingress have the
// first two kinds only.
type clusterPeer struct {
	at          *field.Path
	namespaces  *metav1.LabelSelector
	pods        *networkpolicyapi.NamespacedPod
	nodes       *metav1.LabelSelector
	networks    []networkpolicyapi.CIDR
	domainNames []networkpolicyapi.DomainName
}

// peer reads a peer; ok is false if its rule has to be closed. A peer that sets no field that is
// known here has one of a newer API.
func (p *clusterParser) peer(r *Rule, in *clusterPeer) (out []Peer, ok bool) {
	set := count(in.namespaces != nil, in.pods != nil, in.nodes != nil, len(in.networks) > 0,
		len(in.domainNames) > 0)
	switch {
	case set != 1:
		p.problem(in.at, fmt.Sprintf("%d fields", set),
			"exactly one kind of peer that is known here; "+closed(r))
		return nil, false
	case in.namespaces != nil:
		s := selector.Selector{}
		s.Namespaces, ok = p.labels(in.at.Child("namespaces"), in.namespaces)
		return []Peer{{Selector: &s}}, ok
	case in.pods != nil:
		s, ok := p.namespacedPod(in.at.Child("pods"), in.pods)
		return []Peer{{Selector: &s}}, ok
	case in.nodes != nil:
		p.problem(in.at.Child("nodes"), "a selector", "another kind of peer: nodes aren't "+
			"supported; "+closed(r))
		return nil, false
	case len(in.domainNames) > 0:
		return nil, p.domainNames(r, in)
	}
	return p.networks(r, in)
}

// domainNames are no peers: an Accept rule goes on without them.
func (p *clusterParser) domainNames(r *Rule, in *clusterPeer) (ok bool) {
	at := in.at.Child("domainNames")
	if r.Verdict != Accept {
		p.problem(at, in.domainNames, "no names in a rule that denies or passes; "+closed(r))
		return false
	}
	p.problem(at, in.domainNames,
		"another kind of peer: domain names aren't supported, and match nothing")
	return true
}

func (p *clusterParser) networks(r *Rule, in *clusterPeer) (out []Peer, ok bool) {
	for i, text := range in.networks {
		cidr, err := selector.ParseCIDR(string(text))
		if err != nil {
			p.problem(in.at.Child("networks").Index(i), text,
				"an IPv4 or IPv6 prefix such as 10.0.0.0/8; "+closed(r))
			return nil, false
		}
		out = append(out, Peer{Block: &Block{CIDR: cidr}})
	}
	return out, true
}
