package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Answer says whether a flow is allowed, and why.
type Answer struct {
	Allowed bool
	// Egress is the source's side, Ingress the destination's; nil where that end is no pod, or is
	// exempt.
	Egress, Ingress *Decision
	// Exempt says why policies were not asked, where they were not.
	Exempt string
}

// Decision is what the policies of one pod say of a flow.
type Decision struct {
	Direction policy.Direction
	Pod       selector.Pod
	Allowed   bool
	// Unknown is set for an attached pod whose object isn't known, or whose namespace isn't where
	// that matters: it carries nothing.
	Unknown bool
	// Cluster lists the ClusterNetworkPolicies that select the pod in this direction, and Isolating
	// the NetworkPolicies, in the order in which they are asked.
	Cluster, Isolating []policy.Key
	// Passed is the rule of the Admin tier that left the flow to the next one, By the rule that
	// decided. Nil: none did.
	Passed, By *policy.RuleRef
	// Nearest is the rule that came nearest to allowing.
	Nearest *NearMiss
}

// NearMiss is a rule of which one half matched.
type NearMiss struct {
	policy.RuleRef
	PeerMatched bool // the ports didn't; otherwise the other way round
}

func (n NearMiss) String() string {
	if n.PeerMatched {
		return n.RuleRef.String() + ": the peer matches, the port doesn't"
	}
	return n.RuleRef.String() + ": the port matches, the peer doesn't"
}

// Explain judges a flow with the policies known now. Ends on other nodes are judged too, as far as
// their pods and policies are known. Own are addresses that this node has, whatever its object
// says: no pod is there, whatever its status says.
func (c *Cluster) Explain(f policy.Flow, own ...netip.Addr) Answer {
	c.settle()
	f.Source, f.Destination = f.Source.Unmap(), f.Destination.Unmap()
	out := Answer{Allowed: true}
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		at, other := f.Ends(d)
		pod := c.podAt(at)
		if pod == nil || slices.Contains(own, at) {
			continue
		}
		name := c.nodeOf(pod)
		isNode := func(a netip.Addr) bool {
			if name == c.opts.Node {
				return slices.Contains(own, a) || c.isNode(name, a) && !c.attachedAt(a)
			}
			return c.isNode(name, a)
		}
		if why := c.exempt(pod, d, other, isNode); why != "" {
			out.Exempt = why
			continue
		}
		decision := c.decide(pod, d, f)
		out.Allowed = out.Allowed && decision.Allowed
		if d == policy.Egress {
			out.Egress = decision
		} else {
			out.Ingress = decision
		}
	}
	return out
}

// Whose says what kind of address one is, as far as objects tell.
type Whose int

// An address is a pod's or a node's; of the pod network but nobody's; or out of the cluster, or a
// Service's, which objects known here don't tell.
const (
	Elsewhere Whose = iota
	APods
	ANodes
	Nobodys
)

// Whose says what kind of address one is.
func (c *Cluster) Whose(a netip.Addr) Whose {
	c.settle()
	s := c.nodes.standing
	switch {
	case c.podAt(a) != nil:
		return APods
	case s.taken[a]:
		return ANodes
	case s.rangeOf(a) != "",
		slices.ContainsFunc(c.nodes.networks, func(p netip.Prefix) bool { return p.Contains(a) }):
		return Nobodys
	}
	return Elsewhere
}

// podAt returns the pod whose policies govern an address, if they can select it or if it must wait
// until they can.
func (c *Cluster) podAt(a netip.Addr) *podRecord {
	r := c.pods.owner(a)
	if r != nil && (r.live() || r.subject() || !r.known) {
		return r
	}
	return nil
}

// NamespaceAt is the namespace of the pod whose policies govern an address, or "".
func (c *Cluster) NamespaceAt(a netip.Addr) string {
	if p := c.podAt(a.Unmap()); p != nil {
		return p.ID.Namespace
	}
	return ""
}

// nodeOf returns the name of a pod's node. What is attached here is here, also where the object was
// last seen before it was scheduled.
func (c *Cluster) nodeOf(r *podRecord) string {
	if len(r.endpoints) > 0 {
		return c.opts.Node
	}
	return r.Node
}

// attachedAt reports whether a pod is attached here by an address: what comes from there is under
// its policies, also where this node's object has the address.
func (c *Cluster) attachedAt(a netip.Addr) bool {
	r := c.pods.owner(a)
	return r != nil && r.attachedTo(a)
}

// isNode reports whether a node, as far as that is believed, has an address.
func (c *Cluster) isNode(name string, a netip.Addr) bool {
	n := c.nodes.standing.nodes[name]
	return slices.Contains(n.Underlay, a) || c.nodes.standing.tunnels[a] == name && name != ""
}

// decide asks the policies of a pod, the end of a flow that a direction governs.
func (c *Cluster) decide(pod *podRecord, d policy.Direction, f policy.Flow) *Decision {
	out := &Decision{Direction: d, Pod: pod.ID, Unknown: !pod.known || !c.placed(pod)}
	if out.Unknown {
		return out
	}
	var policies []*policy.Policy
	for _, p := range c.policies {
		if p.Section(d) != nil && p.Subject.Matches(c.namespace(pod.ID.Namespace), pod.Labels) {
			policies = append(policies, p)
		}
	}
	t := inTiers(policies)
	for _, p := range policies {
		if p.Tier == policy.TierNetworkPolicy {
			out.Isolating = append(out.Isolating, p.Key)
		} else {
			out.Cluster = append(out.Cluster, p.Key)
		}
	}
	_, other := f.Ends(d)
	ruling := c.ask(&t, c.otherEnd(pod, d, other), f, d, func(h hit) { out.near(h, d) })
	out.Allowed, out.By, out.Passed = ruling.allowed, ruling.by.ref(d), ruling.passed.ref(d)
	if out.Allowed {
		out.Nearest = nil
	}
	return out
}

// near keeps the first of the rules that came nearest: a matching peer beats a matching port.
func (d *Decision) near(h hit, direction policy.Direction) {
	nearer := d.Nearest == nil || h.match.peer && !d.Nearest.PeerMatched
	if nearer && (h.match.peer || h.match.port) {
		d.Nearest = &NearMiss{RuleRef: *h.ref(direction), PeerMatched: h.match.peer}
	}
}

// ref points at the rule, for people.
func (h *hit) ref(d policy.Direction) *policy.RuleRef {
	if h == nil {
		return nil
	}
	out := &policy.RuleRef{
		Ref:  policy.Ref{Policy: h.policy.Key, Direction: d},
		Tier: h.policy.Tier, Rule: h.rule.Index, Name: h.rule.Name,
	}
	if h.peer != nil {
		out.Peer = h.peer.String()
	}
	return out
}

// String renders the answer for a person: one line for each end.
func (a Answer) String() string {
	var lines []string
	verdict := "denied"
	if a.Allowed {
		verdict = "allowed"
	}
	lines = append(lines, verdict)
	if a.Exempt != "" {
		lines = append(lines, "  "+a.Exempt)
	}
	for _, d := range []*Decision{a.Egress, a.Ingress} {
		if d != nil {
			lines = append(lines, "  "+d.String())
		}
	}
	if len(lines) == 1 {
		lines = append(lines, "  neither end is a pod that policies govern")
	}
	return strings.Join(lines, "\n")
}

func (d Decision) String() string {
	at := fmt.Sprintf("%s of %s/%s", d.Direction, d.Pod.Namespace, d.Pod.Name)
	if d.Unknown {
		return at + ": denied, the pod is attached but its object or its namespace isn't known yet"
	}
	if d.Passed != nil {
		at += ": passed by " + d.Passed.String()
	}
	switch {
	case d.By != nil && d.Allowed:
		return at + ": allowed by " + d.By.String()
	case d.Allowed && d.Passed != nil:
		return at + ", and nothing after it denies"
	case d.Allowed && len(d.Cluster) > 0:
		return at + ": allowed, no rule matches of " + policy.List(d.Cluster, ", ")
	case d.Allowed:
		return at + ": open, no policy selects the pod"
	case d.By != nil:
		at += ": denied by " + d.By.String()
	default:
		at += ": denied, isolated by " + policy.List(d.Isolating, ", ")
	}
	if d.Nearest != nil {
		at += "; nearest was " + d.Nearest.String()
	}
	return at
}
