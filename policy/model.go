package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/selector"
)

// Key names a policy, or a pod. A policy of no namespace is a ClusterNetworkPolicy.
type Key struct{ Namespace, Name string }

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Compare orders keys by namespace, then name.
func (k Key) Compare(o Key) int {
	if c := strings.Compare(k.Namespace, o.Namespace); c != 0 {
		return c
	}
	return strings.Compare(k.Name, o.Name)
}

// mostNamed is how many policies are named where there may be any number: in a line about each
// packet, an answer to a person.
const mostNamed = 10

// List names policies for people, the first of them where there are many.
func List(keys []Key, separator string) string {
	named := keys[:min(len(keys), mostNamed)]
	names := make([]string, len(named), len(named)+1)
	for i, k := range named {
		names[i] = k.String()
	}
	if more := len(keys) - len(named); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, separator)
}

// NamespaceName is the label by which namespaceSelectors name namespaces (KEP-2161).
const NamespaceName = "kubernetes.io/metadata.name"

// Direction is seen from the pod a policy selects.
type Direction uint8

// The directions a policy can govern.
const (
	Ingress Direction = iota
	Egress
)

// Directions lists both, in a fixed order.
var Directions = [...]Direction{Ingress, Egress}

func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Tier orders policies of different kinds; lower ones are asked first.
type Tier uint8

// The tiers (KEP-2091). ClusterNetworkPolicies are of the first or the last.
const (
	TierAdmin Tier = iota
	TierNetworkPolicy
	TierBaseline
)

// Tiers lists all, in the order in which they are asked.
var Tiers = [...]Tier{TierAdmin, TierNetworkPolicy, TierBaseline}

func (t Tier) String() string {
	return [...]string{"Admin", "NetworkPolicy", "Baseline"}[t]
}

// Verdict is what a rule, or the end of a tier, says of a flow.
type Verdict uint8

// Pass hands the flow to the next tier.
const (
	Accept Verdict = iota
	Deny
	Pass
)

func (v Verdict) String() string { return [...]string{"accept", "deny", "pass"}[v] }

// Policy is one parsed policy.
type Policy struct {
	Key  Key
	Tier Tier
	// Priority orders the policies of a tier other than NetworkPolicies': the lowest is asked
	// first, and of equal ones the first by name.
	Priority int32
	Subject  selector.Selector
	// Ingress and Egress are nil where the policy doesn't govern the direction.
	Ingress, Egress *Section
	Problems        []Problem
}

// Section returns the rules for a direction, nil when it isn't governed.
func (p *Policy) Section(d Direction) *Section {
	if d == Egress {
		return p.Egress
	}
	return p.Ingress
}

// Compare orders policies as they are asked: by tier, priority and name.
func (p *Policy) Compare(o *Policy) int {
	return cmp.Or(cmp.Compare(p.Tier, o.Tier), cmp.Compare(p.Priority, o.Priority),
		p.Key.Compare(o.Key))
}

// Outcome is what becomes of a flow that a rule of the policy matches. Behind the Baseline tier is
// no policy that could deny what it passes.
func (p *Policy) Outcome(r *Rule) Verdict {
	if p.Tier == TierBaseline && r.Verdict == Pass {
		return Accept
	}
	return r.Verdict
}

// Emptied is a NetworkPolicy without its rules: it isolates whom it isolated.
func (p *Policy) Emptied() *Policy {
	out := *p
	if out.Ingress != nil {
		out.Ingress = &Section{}
	}
	if out.Egress != nil {
		out.Egress = &Section{}
	}
	return &out
}

// Section is what a policy says for one direction. In the tier of NetworkPolicies the order of
// rules doesn't matter, and what none of them matches is denied. In the others the first one that
// matches counts, and what none matches is for the next policy.
type Section struct{ Rules []Rule }

// Rule matches a flow when one of its peers and one of its ports do.
type Rule struct {
	// Index is the rule's position in spec.ingress or spec.egress.
	Index int
	// Name is what a ClusterNetworkPolicy calls the rule, or empty.
	Name    string
	Verdict Verdict
	// AnyPeer is set when the rule names no peers; Peers is then empty. A rule whose peers were all
	// unreadable has neither and matches nothing.
	AnyPeer bool
	Peers   []Peer
	// AnyPort is set when the rule names no ports: any port of any protocol, ICMP included.
	// Otherwise Ports (canonical, see selector.MergePorts) and Named (sorted) list what matches.
	AnyPort bool
	Ports   []selector.PortRange
	Named   []NamedPort
}

// Peer is the other end of a flow: pods that a selector picks, or a block of addresses. Exactly one
// of the fields is set.
type Peer struct {
	Selector *selector.Selector
	Block    *Block
}

func (p Peer) String() string {
	if p.Block != nil {
		return p.Block.String()
	}
	return string(p.Selector.Key())
}

// Block is an ipBlock: the addresses of CIDR that are in no Except.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

func (b Block) String() string {
	if len(b.Except) == 0 {
		return b.CIDR.String()
	}
	excepts := make([]string, len(b.Except))
	for i, e := range b.Except {
		excepts[i] = e.String()
	}
	return b.CIDR.String() + " except " + strings.Join(excepts, ", ")
}

func (b Block) same(o Block) bool {
	return b.CIDR == o.CIDR && slices.Equal(b.Except, o.Except)
}

// Contains reports whether the block matches the address by itself.
func (b Block) Contains(a netip.Addr) bool {
	if !b.CIDR.Contains(a) {
		return false
	}
	for _, e := range b.Except {
		if e.Contains(a) {
			return false
		}
	}
	return true
}

// NamedPort is a port by name; the destination pod says which numbers it has.
type NamedPort struct {
	Protocol uint8
	Name     string
}

func (n NamedPort) String() string { return ProtocolName(n.Protocol) + " " + n.Name }

// Compare orders named ports by protocol, then name.
func (n NamedPort) Compare(o NamedPort) int {
	return cmp.Or(cmp.Compare(n.Protocol, o.Protocol), strings.Compare(n.Name, o.Name))
}

// IP protocol numbers that a policy can name (IANA protocol-numbers).
const (
	ProtocolTCP  uint8 = 6
	ProtocolUDP  uint8 = 17
	ProtocolSCTP uint8 = 132
)

// Those of ICMP, which it can't name, but which it judges.
const (
	ProtocolICMP   uint8 = 1
	ProtocolICMPv6 uint8 = 58
)

// ProtocolName spells an IP protocol number the way policies do.
func ProtocolName(p uint8) string {
	switch p {
	case ProtocolTCP:
		return "TCP"
	case ProtocolUDP:
		return "UDP"
	case ProtocolSCTP:
		return "SCTP"
	case ProtocolICMP:
		return "ICMP"
	case ProtocolICMPv6:
		return "ICMPv6"
	}
	return fmt.Sprintf("protocol %d", p)
}

// Problem is a field that could not be read. Of a NetworkPolicy only the item it names is lost; the
// policy goes on isolating its subjects. For others see ParseCluster.
type Problem struct {
	Field    string // path in the manifest, as kubectl prints it
	Value    string
	Expected string
}

func (p Problem) String() string {
	return fmt.Sprintf("%s: %q is not usable: expected %s", p.Field, p.Value, p.Expected)
}

// Flow is a new connection as it is judged: after DNAT, before SNAT.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            uint8  // IP protocol number
	Port                uint16 // destination port; ignored where the protocol has none
}

// Ends returns a flow's ends as one direction has them: the pod that it governs, and the other.
func (f Flow) Ends(d Direction) (governed, other netip.Addr) {
	if d == Egress {
		return f.Source, f.Destination
	}
	return f.Destination, f.Source
}
