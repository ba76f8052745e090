package ruleset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// portSet is a set of protocols and ports. Its name follows from its content, so it never changes.
type portSet struct {
	name     string
	interval bool
	ranges   []selector.PortRange
}

// fewPorts is the most ports that are listed one by one: less than half the price of a look-up of
// ranges, for each packet (ADR 29).
const fewPorts = 32

func newPortSet(ranges []selector.PortRange) portSet {
	ports := 0
	for _, r := range ranges {
		ports += int(r.Last) - int(r.First) + 1
	}
	kind := "ports"
	if ports > fewPorts {
		kind = "port-ranges"
	}
	return portSet{nft.Name(kind, portsText(ranges)), ports > fewPorts, ranges}
}

// key has the ports first where they are ranges: see nft.PortsElement.
func (p portSet) key() []nft.Field {
	if p.interval {
		return []nft.Field{nft.DstPort, nft.L4Proto}
	}
	return []nft.Field{nft.L4Proto, nft.DstPort}
}

func (p portSet) set() *nft.Set {
	s := &nft.Set{
		Name: p.name, Key: p.key(), Interval: p.interval,
		Comment: portsText(p.ranges), Elements: map[nft.Element]nft.Verdict{},
	}
	for _, r := range p.ranges {
		if s.Interval {
			s.Elements[nft.PortsElement(r.Protocol, r.First, r.Last)] = nft.Verdict{}
			continue
		}
		for port := int(r.First); port <= int(r.Last); port++ {
			//nolint:gosec // between two ports
			s.Elements[nft.ProtoPortElement(r.Protocol, uint16(port))] = nft.Verdict{}
		}
	}
	return s
}

// portsText spells port ranges for names and comments.
func portsText(ranges []selector.PortRange) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		protocol := strings.ToLower(policy.ProtocolName(r.Protocol))
		switch {
		case r.First == r.Last:
			parts[i] = fmt.Sprintf("%s-%d", protocol, r.First)
		case r.First == 0 && r.Last == 65535:
			parts[i] = protocol
		default:
			parts[i] = fmt.Sprintf("%s-%d-%d", protocol, r.First, r.Last)
		}
	}
	return strings.Join(parts, ".")
}

// renderedPart is a chain with a part of a policy's rules, and the names of the sets that these
// rules look into.
type renderedPart struct {
	clauses []policy.Clause
	ports   []portSet
	sets    []string
	denials []int // the rules that deny
}

// renderedRules are the chains of a policy's rules, or of those that are merged, by name.
type renderedRules struct {
	parts    map[string]renderedPart
	policies []policy.Key
}

// patchRules replaces the chain of one policy and direction, or of merged ones. Where its rules are
// in several parts, it replaces the changed parts; the chain itself jumps to each part that has
// rules.
func (r *Renderer) patchRules(out *nft.Patch, c *cluster.Cluster, ref policy.Ref) {
	parts, used := c.Parts(ref)
	main, old, now := policyChain(ref), r.rules[ref].parts, map[string]renderedPart{}
	jumps := &nft.Chain{Name: main}
	for i, part := range parts {
		switch {
		case len(parts) == 1:
			now[main] = renderPart(out, ref, main, part, old[main])
		case len(part) > 0:
			name := partChain(ref, i)
			now[name] = renderPart(out, ref, name, part, old[name])
			jumps.Rules = append(jumps.Rules, rule("", nft.Do{Verdict: nft.JumpTo(name)}))
		}
	}
	if len(parts) != 1 {
		out.Chains[main] = nil
		if used {
			out.Chains[main] = jumps
		}
	}
	for name := range old {
		if _, stays := now[name]; !stays && name != main {
			out.Chains[name] = nil
		}
	}
	if passes(now[main].clauses) {
		out.Chains[main] = nil // its rules stand in the chains of tiers
	}
	r.cfg.patchDenials(out, ref, old[main], now[main])
	delete(r.rules, ref)
	if used {
		r.rules[ref] = renderedRules{now, c.PoliciesOf(ref)}
	}
	r.patchPorts(out, old, now)
}

// renderPart renders a chain, unless the ruleset has it already. Parts are replaced, never changed.
func renderPart(out *nft.Patch, ref policy.Ref, name string, part []policy.Clause,
	old renderedPart) renderedPart {
	if len(part) > 0 && len(part) == len(old.clauses) && &part[0] == &old.clauses[0] {
		return old
	}
	now := renderedPart{clauses: part}
	chain := &nft.Chain{Name: name}
	for _, cl := range part {
		chain.Rules = append(chain.Rules, clauseRules(ref, cl)...)
		if len(cl.Ports) > 1 {
			now.ports = append(now.ports, newPortSet(cl.Ports))
		}
		if cl.Verdict == policy.Deny {
			now.denials = append(now.denials, cl.Rule)
		}
	}
	now.sets = setsOf(chain)
	out.Chains[name] = chain
	return now
}

// setsOf lists the sets that a chain's rules look into.
func setsOf(chain *nft.Chain) []string {
	var out []string
	for _, r := range chain.Rules {
		for _, s := range r.Statements {
			if in, is := s.(nft.InSet); is {
				out = append(out, in.Set)
			}
		}
	}
	slices.Sort(out)
	return slices.Clip(slices.Compact(out))
}

// patchPorts counts the uses of port sets, and makes and deletes them.
func (r *Renderer) patchPorts(out *nft.Patch, old, now map[string]renderedPart) {
	for _, part := range now {
		for _, s := range part.ports {
			if r.ports.add(s.name) {
				out.Sets[s.name] = &nft.SetPatch{Create: s.set()}
			}
		}
	}
	for _, part := range old {
		for _, s := range part.ports {
			r.dropPorts(out, s)
		}
	}
}

func (r *Renderer) dropPorts(out *nft.Patch, s portSet) {
	if !r.ports.drop(s.name) {
		return
	}
	if out.Sets[s.name] != nil {
		delete(out.Sets, s.name) // made and given up by the same patch
		return
	}
	out.Sets[s.name] = nil
}

// clauseRules renders a clause: a rule for each family that it can match, or one for both where it
// names no address.
func clauseRules(ref policy.Ref, cl policy.Clause) []nft.Rule {
	d, verdict := ref.Direction, clauseVerdict(ref, cl)
	comment := cl.Of
	if cl.Peer != nil {
		comment += ": " + cl.Peer.ID.String()
	}
	if cl.Named != nil {
		comment += ": " + cl.Named.ID.String()
	}
	if cl.Peer == nil && cl.Named == nil {
		return []nft.Rule{rule(comment, append(portMatch(cl.Ports), verdict)...)}
	}
	var out []nft.Rule
	for _, f := range families {
		if cl.Peer != nil && !hasFamily(cl.Peer, f.is4) {
			continue
		}
		match := portMatch(cl.Ports) // the cheapest first
		if cl.Named != nil {
			match = append(match, nft.InSet{
				Fields: []nft.Field{addrField(false, f.is4), nft.L4Proto, nft.DstPort},
				Set:    setName(cl.Named.ID, f.suffix),
			})
		}
		if cl.Peer != nil {
			match = append(match, nft.InSet{Fields: []nft.Field{peerField(d, f.is4)},
				Set: setName(cl.Peer.ID, f.suffix)})
		}
		out = append(out, rule(comment, append(match, verdict)...))
	}
	return out
}

// portMatch matches only the ports; nil is any port.
func portMatch(ports []selector.PortRange) []nft.Statement {
	switch {
	case len(ports) == 0:
		return nil
	case len(ports) > 1:
		s := newPortSet(ports)
		return []nft.Statement{nft.InSet{Fields: s.key(), Set: s.name}}
	case ports[0].First == 0 && ports[0].Last == 65535:
		return []nft.Statement{nft.MatchProto{Proto: ports[0].Protocol}}
	}
	return []nft.Statement{nft.MatchPort{Proto: ports[0].Protocol, First: ports[0].First,
		Last: ports[0].Last}}
}

// hasFamily reports whether a set can have members of a family; an ipBlock has members of its own
// family only.
func hasFamily(s *policy.Set, is4 bool) bool {
	return s.ID.Kind != policy.BlockSet || slices.ContainsFunc(s.Blocks, func(b policy.Block) bool {
		return b.CIDR.Addr().Is4() == is4
	})
}

// setName names the set of one family.
func setName(id policy.SetID, family string) string {
	kind := map[policy.SetKind]string{
		policy.PodSet: "pods", policy.BlockSet: "block", policy.PortSet: "named-port",
		policy.LocalPortSet: "own-named-port",
	}[id.Kind]
	return nft.Name(verdictPrefix[id.For]+kind, id.String(), family)
}

// patchSet renders the change of a set, once for each family it can have.
func patchSet(out *nft.Patch, ch cluster.SetChange) {
	for _, f := range families {
		if !hasFamily(&ch.Set, f.is4) {
			continue
		}
		name := setName(ch.Set.ID, f.suffix)
		if ch.Deleted {
			out.Sets[name] = nil
			continue
		}
		if ch.Created {
			set := newSet(ch.Set, name, f.is4)
			for _, m := range ch.Add {
				if m.First.Is4() == f.is4 {
					set.Elements[element(ch.Set, m)] = nft.Verdict{}
				}
			}
			out.Sets[name] = &nft.SetPatch{Create: set}
			continue
		}
		for _, m := range ch.Add {
			if m.First.Is4() == f.is4 {
				put(setPatch(out, name), element(ch.Set, m), nft.Verdict{})
			}
		}
		for _, m := range ch.Remove {
			if m.First.Is4() == f.is4 {
				remove(setPatch(out, name), element(ch.Set, m))
			}
		}
	}
}

func newSet(s policy.Set, name string, is4 bool) *nft.Set {
	out := &nft.Set{Name: name, Comment: s.ID.String(), Elements: map[nft.Element]nft.Verdict{}}
	switch s.ID.Kind {
	case policy.PodSet:
		out.Key = []nft.Field{addrField(true, is4)}
	case policy.BlockSet:
		out.Key, out.Interval = []nft.Field{addrField(true, is4)}, true
	case policy.PortSet, policy.LocalPortSet:
		out.Key = []nft.Field{addrField(false, is4), nft.L4Proto, nft.DstPort}
	}
	out.Guard = s.ID.For == policy.Deny
	out.Skip = s.ID.For == policy.Pass && !out.Interval // ranges never change: see byContent
	return out
}

func element(s policy.Set, m policy.Member) nft.Element {
	switch s.ID.Kind {
	case policy.BlockSet:
		return nft.RangeElement(m.First, m.Last)
	case policy.PortSet, policy.LocalPortSet:
		return nft.AddrProtoPortElement(m.First, m.Protocol, m.Port)
	case policy.PodSet:
	}
	return nft.AddrElement(m.First)
}
