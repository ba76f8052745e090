package cluster

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// An otherEnd is what the rules of a pod see of the other end of its flows.
type otherEnd struct {
	address netip.Addr
	// pod is the pod that selectors mean by the address; nil: none.
	pod *podRecord
	// destination is the pod whose names of ports count; nil: none.
	destination *podRecord
	// known: the destination's namespace is, or doesn't matter. A peer that is no selector leaves
	// the destination of egress to be any pod of a known namespace.
	known bool
}

// otherEnd looks at who is at an address, for the rules of a pod in a direction.
func (c *Cluster) otherEnd(pod *podRecord, d policy.Direction, a netip.Addr) *otherEnd {
	o := c.otherEndOf(pod, d, c.pods.peer(a))
	o.address = a
	return o
}

// otherEndOf is for who knows the pod at the other end, and its address doesn't matter.
func (c *Cluster) otherEndOf(pod *podRecord, d policy.Direction, other *podRecord) *otherEnd {
	o := &otherEnd{pod: other, destination: pod, known: true}
	if d == policy.Egress {
		o.destination = other
		o.known = other != nil && c.namespace(other.ID.Namespace).Known
	}
	return o
}

// A match says which halves of a rule match.
type match struct{ peer, port bool }

// matches holds a flow against a rule: by each of the rule's peers, or by nil, which is any peer.
func (c *Cluster) matches(
	r *policy.Rule, o *otherEnd, f policy.Flow,
) iter.Seq2[*policy.Peer, match] {
	return func(yield func(*policy.Peer, match) bool) {
		number := r.AnyPort || hasPort(portsOf(r, o, false), f)
		name := number || hasPort(portsOf(r, o, true), f)
		for peer := range anyOf(r) {
			m := match{peer: c.matchesPeer(peer, o, r.Verdict == policy.Deny),
				port: number || name && o.namesCount(peer)}
			if !yield(peer, m) {
				return
			}
		}
	}
}

// anyOf lists the peers of a rule, one of which has to match; nil is any peer.
func anyOf(r *policy.Rule) iter.Seq[*policy.Peer] {
	return func(yield func(*policy.Peer) bool) {
		if r.AnyPeer && !yield(nil) {
			return
		}
		for i := range r.Peers {
			if !yield(&r.Peers[i]) {
				return
			}
		}
	}
}

// matchesPeer reports whether a peer of a rule, which denies or not, matches; nil always does.
func (c *Cluster) matchesPeer(p *policy.Peer, o *otherEnd, deny bool) bool {
	switch {
	case p == nil:
		return true
	case p.Block != nil:
		return c.matchesBlock(*p.Block, o.address, deny)
	case o.pod == nil:
		return false
	}
	return p.Selector.Matches(c.namespace(o.pod.ID.Namespace), o.pod.Labels)
}

// matchesBlock: a tunnel address stands for its node. To deny, its own place counts as well.
func (c *Cluster) matchesBlock(b policy.Block, a netip.Addr, deny bool) bool {
	if a.Is4() != b.CIDR.Addr().Is4() {
		return false
	}
	if n, ok := c.nodes.standing.tunnelOf(a); ok && (!deny || !b.Contains(a)) {
		return containsTunnel(b, n, a)
	}
	return b.Contains(a)
}

// namesCount reports whether a rule's named ports count where this peer matches.
func (o *otherEnd) namesCount(p *policy.Peer) bool {
	return o.known || o.destination != nil && p != nil && p.Selector != nil
}

// portsOf lists the numbers of a rule's ports; with names also those that its named ports have at
// the destination.
func portsOf(r *policy.Rule, o *otherEnd, names bool) iter.Seq[selector.PortRange] {
	return func(yield func(selector.PortRange) bool) {
		for _, p := range r.Ports {
			if !yield(p) {
				return
			}
		}
		if !names || len(r.Named) == 0 || o.destination == nil {
			return
		}
		for p := range o.destination.Ports.All() {
			if !containsPort(r.Named, p.NamedPort) {
				continue
			}
			if !yield(selector.PortRange{Protocol: p.Protocol, First: p.Number, Last: p.Number}) {
				return
			}
		}
	}
}

func hasPort(ports iter.Seq[selector.PortRange], f policy.Flow) bool {
	for p := range ports {
		if p.Protocol == f.Protocol && p.First <= f.Port && f.Port <= p.Last {
			return true
		}
	}
	return false
}

// exempt says for people why a pod's policies aren't asked about its flows with an address, and ""
// where they are. Whether the address is one of the pod's node is for isNode to say.
func (c *Cluster) exempt(
	pod *podRecord, d policy.Direction, other netip.Addr, isNode func(netip.Addr) bool,
) string {
	switch {
	case c.placed(pod) && c.pods.has(pod, other):
		return "a pod may always reach itself"
	case d == policy.Ingress && isNode(other):
		return "a node may always reach its own pods"
	case d == policy.Egress && c.opts.AllowPodToNode && isNode(other):
		return "pods may reach their own node"
	}
	return ""
}

// containsPort searches a sorted list: a rule and a pod may have thousands each.
func containsPort(sorted []policy.NamedPort, n policy.NamedPort) bool {
	_, found := slices.BinarySearchFunc(sorted, n, policy.NamedPort.Compare)
	return found
}
