package controllers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// portSet is a set of protocols and ports. Its name follows from its content,
// so it never changes.
type portSet struct {
	name   string
	ranges []selector.PortRange
}

func newPortSet(ranges []selector.PortRange) portSet {
	return portSet{nft.Name("ports", portsText(ranges)), ranges}
}

func (p portSet) set() *nft.Set {
	s := &nft.Set{
		Name: p.name, Key: []nft.Field{nft.L4Proto, nft.DstPort}, Interval: true,
		Comment: portsText(p.ranges), Elements: map[nft.Element]nft.Verdict{},
	}
	for _, r := range p.ranges {
		s.Elements[nft.ProtoPortsElement(r.Protocol, r.First, r.Last)] = nft.Verdict{}
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

// renderedRules is what stands in the ruleset for a policy in one direction
// besides its chain.
type renderedRules struct {
	ports []portSet
	parts []string // chains
}

// patchRules replaces the chain of one policy and direction, and those of its
// parts, if there are several: then it jumps to each that has rules.
func (r *Renderer) patchRules(out *nft.Patch, c *policy.Cluster, ref policy.Ref) {
	parts, used := c.Parts(ref)
	old, now := r.rules[ref], renderedRules{}
	for _, name := range old.parts {
		out.Chains[name] = nil
	}
	if used {
		chain := &nft.Chain{Name: policyChain(ref)}
		for i, part := range parts {
			rules := now.render(ref, part)
			if len(parts) == 1 {
				chain.Rules = rules
			} else if len(rules) > 0 {
				name := partChain(ref, i)
				out.Chains[name] = &nft.Chain{Name: name, Rules: rules}
				chain.Rules = append(chain.Rules, rule("", nft.Do{Verdict: nft.JumpTo(name)}))
				now.parts = append(now.parts, name)
			}
		}
		out.Chains[chain.Name] = chain
		r.rules[ref] = now
	} else {
		out.Chains[policyChain(ref)] = nil
		delete(r.rules, ref)
	}
	r.patchPorts(out, old.ports, now.ports)
}

// render returns the rules of clauses, and notes the port sets that they need.
func (r *renderedRules) render(ref policy.Ref, clauses []policy.Clause) []nft.Rule {
	var out []nft.Rule
	for _, cl := range clauses {
		out = append(out, clauseRules(ref, cl)...)
		if len(cl.Ports) > 1 {
			r.ports = append(r.ports, newPortSet(cl.Ports))
		}
	}
	return out
}

// patchPorts counts the uses of port sets, and makes and deletes them.
func (r *Renderer) patchPorts(out *nft.Patch, old, now []portSet) {
	for _, s := range now {
		if r.ports.add(s.name) {
			out.Sets[s.name] = &nft.SetPatch{Create: s.set()}
		}
	}
	for _, s := range old {
		if !r.ports.drop(s.name) {
			continue
		}
		if created := out.Sets[s.name]; created != nil {
			delete(out.Sets, s.name) // made and given up by the same patch
			continue
		}
		out.Sets[s.name] = nil
	}
}

// clauseRules renders a clause: a rule for each family that it can match, or
// one for both where it names no address.
func clauseRules(ref policy.Ref, cl policy.Clause) []nft.Rule {
	comment := fmt.Sprintf("%s rule %d", ref.Policy, cl.Rule)
	if cl.Peer != nil {
		comment += ": " + cl.Peer.ID.String()
	}
	if cl.Named != nil {
		comment += ": " + cl.Named.ID.String()
	}
	if cl.Peer == nil && cl.Named == nil {
		return []nft.Rule{rule(comment, append(portMatch(cl.Ports), do(nft.Accept))...)}
	}
	var out []nft.Rule
	for _, f := range families {
		if cl.Peer != nil && !hasFamily(cl.Peer, f.is4) {
			continue
		}
		match := portMatch(cl.Ports) // the cheapest first
		if cl.Named != nil {
			match = append(match, nft.InSet{
				Fields: []nft.Field{addrField(false, f.is4), nft.L4Proto, nft.DstPort}, Set: setName(cl.Named.ID, f.suffix),
			})
		}
		if cl.Peer != nil {
			match = append(match, nft.InSet{Fields: []nft.Field{peerField(ref.Direction, f.is4)}, Set: setName(cl.Peer.ID, f.suffix)})
		}
		out = append(out, rule(comment, append(match, do(nft.Accept))...))
	}
	return out
}

// portMatch matches nothing but the ports; nil ports are any.
func portMatch(ports []selector.PortRange) []nft.Statement {
	switch {
	case len(ports) == 0:
		return nil
	case len(ports) > 1:
		return []nft.Statement{nft.InSet{Fields: []nft.Field{nft.L4Proto, nft.DstPort}, Set: newPortSet(ports).name}}
	case ports[0].First == 0 && ports[0].Last == 65535:
		return []nft.Statement{nft.MatchProto{Proto: ports[0].Protocol}}
	}
	return []nft.Statement{nft.MatchPort{Proto: ports[0].Protocol, First: ports[0].First, Last: ports[0].Last}}
}

// hasFamily reports whether a set can have members of a family: ipBlocks only
// of their own.
func hasFamily(s *policy.Set, is4 bool) bool {
	return s.ID.Kind != policy.BlockSet || slices.ContainsFunc(s.Blocks, func(b policy.Block) bool { return b.CIDR.Addr().Is4() == is4 })
}

// setName names the set of one family.
func setName(id policy.SetID, family string) string {
	kind := map[policy.SetKind]string{
		policy.PodSet: "pods", policy.BlockSet: "block", policy.PortSet: "named-port", policy.LocalPortSet: "own-named-port",
	}[id.Kind]
	return nft.Name(kind, id.String(), family)
}

// patchSet renders the change of a set, once for each family it can have.
func patchSet(out *nft.Patch, ch policy.SetChange) {
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
