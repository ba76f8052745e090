package verify_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/randomcluster"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// This file decides by brute force whether two typed rulesets mean the same: it sends concrete
// packets through both. It knows nothing of the kernel, of what reads it back, and of policies.

// tracedPacket is a concrete packet at one hook.
type tracedPacket struct {
	ruleworld.Packet
	hook   nft.Hook
	state  nft.CTState
	noSYN  bool
	nd     bool // neighbour discovery
	noBack bool // the node doesn't reach the source where the packet comes from
}

// traced is what becomes of it.
type traced struct {
	kind      nft.VerdictKind // Accept or Drop
	reset     bool
	untracked bool
}

type trace struct {
	rs  *nft.Ruleset
	p   *tracedPacket
	out traced
}

// traceOne sends a packet through the base chains of its hook.
func traceOne(rs *nft.Ruleset, bases map[nft.Hook][]*nft.Chain, p *tracedPacket) traced {
	j := trace{rs: rs, p: p}
	for _, c := range bases[p.hook] {
		if c.Base.Type == nft.NATChain && p.state != nft.CTNew {
			continue
		}
		if j.chain(c) == nft.Drop {
			j.out.kind = nft.Drop
			return j.out
		}
	}
	j.out.kind = nft.Accept
	return j.out
}

func basesOf(rs *nft.Ruleset) map[nft.Hook][]*nft.Chain {
	out := map[nft.Hook][]*nft.Chain{}
	for _, name := range slices.Sorted(maps.Keys(rs.Chains)) {
		if c := rs.Chains[name]; c.Base != nil {
			out[c.Base.Hook] = append(out[c.Base.Hook], c)
		}
	}
	for _, list := range out {
		slices.SortStableFunc(list, func(a, b *nft.Chain) int {
			return cmp.Compare(a.Base.Priority, b.Base.Priority)
		})
	}
	return out
}

func (j *trace) chain(c *nft.Chain) nft.VerdictKind {
	for _, r := range c.Rules {
		v := j.rule(r)
		switch v.Kind {
		case nft.Accept, nft.Drop:
			return v.Kind
		case nft.Return:
			return nft.NoVerdict
		case nft.Jump:
			if kind := j.chain(j.rs.Chains[v.Chain]); kind != nft.NoVerdict {
				return kind
			}
		default:
		}
	}
	return nft.NoVerdict
}

func (j *trace) rule(r nft.Rule) nft.Verdict {
	p := j.p
	for _, s := range r.Statements {
		matched := true
		switch s := s.(type) {
		case nft.MatchCT:
			matched = s.State&p.state != 0
		case nft.MatchND:
			matched = p.nd && p.Src.Is6() && p.Protocol == policy.ProtocolICMPv6
		case nft.MatchTCPNoSYN:
			matched = p.noSYN && p.Protocol == policy.ProtocolTCP
		case nft.MatchNoRouteBack:
			matched = p.noBack
		case nft.MatchRouteBack:
			matched = !p.noBack
		case nft.ResetTCP:
			if p.Protocol == policy.ProtocolTCP {
				j.out.reset = true
				return nft.Verdict{Kind: nft.Drop}
			}
			return nft.Verdict{}
		case nft.NoTrack:
			j.out.untracked = true
		case nft.DNAT:
			set := j.rs.Sets[s.Map]
			if e, ok := p.Key(s.Fields); ok && (set.Targets == nft.DstAddr4) == p.Src.Is4() {
				if _, found := set.Elements[e]; found {
					return nft.Verdict{Kind: nft.Accept}
				}
			}
			return nft.Verdict{}
		case nft.SNAT:
			if s.Addr.Is4() == p.Src.Is4() {
				return nft.Verdict{Kind: nft.Accept}
			}
		case nft.Masquerade:
			return nft.Verdict{Kind: nft.Accept}
		case nft.MatchPrefix:
			a := p.Src
			if s.Field == nft.DstAddr4 || s.Field == nft.DstAddr6 {
				a = p.Dst
			}
			matched = s.Prefix.Contains(a)
		default:
			ok, verdict, err := ruleworld.Step(j.rs, s, p.Packet)
			if err != nil {
				panic(err)
			}
			if verdict.Kind != nft.NoVerdict {
				return verdict
			}
			if _, isDispatch := s.(nft.Dispatch); isDispatch {
				return nft.Verdict{}
			}
			matched = ok
		}
		if !matched {
			return nft.Verdict{}
		}
	}
	return nft.Verdict{}
}

// packetSpace is the packets at which two rulesets of a state can differ.
type packetSpace struct {
	addresses []netip.Addr
	where     map[netip.Addr][]string // interfaces by which an address may be seen
	ports     []protoPort
}

type protoPort struct {
	protocol uint8
	port     uint16
}

// newPacketSpace cuts addresses and ports wherever one of the rulesets does.
func newPacketSpace(rulesets ...*nft.Ruleset) *packetSpace {
	w := &packetSpace{where: map[netip.Addr][]string{}}
	addresses := map[netip.Addr]bool{}
	ports := map[protoPort]bool{{1, 0}: true, {policy.ProtocolICMPv6, 0}: true,
		{policy.ProtocolTCP, 80}: true, {policy.ProtocolUDP, 53}: true,
		{policy.ProtocolSCTP, 80}: true, {47, 0}: true}
	here := func(a netip.Addr) { addresses[a] = true }
	around := func(a netip.Addr) {
		for _, x := range []netip.Addr{a, a.Prev(), a.Next()} {
			if x.IsValid() {
				addresses[x] = true
			}
		}
	}
	port := func(protocol uint8, n uint16) {
		for _, x := range []uint16{n - 1, n, n + 1} {
			ports[protoPort{protocol, x}] = true
		}
	}
	for _, a := range slices.Concat(randomcluster.Strangers, []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("224.0.0.1"),
		netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1"),
	}) {
		addresses[a] = true
	}
	for _, rs := range rulesets {
		for _, s := range rs.Sets {
			add := here // next to a single address there is nothing
			if s.Interval {
				add = around
			}
			for e := range s.Elements {
				for _, end := range []string{e.First, e.Last} {
					w.cut(s, end, add, port)
				}
			}
		}
		for _, c := range rs.Chains {
			for _, r := range c.Rules {
				for _, st := range r.Statements {
					switch st := st.(type) {
					case nft.MatchAddr:
						here(st.Addr)
					case nft.MatchPort:
						port(st.Proto, st.First)
						port(st.Proto, st.Last)
					case nft.MatchProto:
						ports[protoPort{st.Proto, 0}] = true
					}
				}
			}
		}
	}
	byAddress := func(a, b netip.Addr) int { return a.Compare(b) }
	w.addresses = slices.SortedFunc(maps.Keys(addresses), byAddress)
	w.ports = slices.SortedFunc(maps.Keys(ports), func(a, b protoPort) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
	})
	return w
}

// cut takes a key apart.
func (w *packetSpace) cut(s *nft.Set, key string, around func(netip.Addr),
	port func(uint8, uint16)) {
	var protocol uint8
	var address netip.Addr
	var number []byte // of the port, which may come before its protocol
	for _, f := range s.Key {
		if key == "" { // an element of single values has no last one
			return
		}
		switch f {
		case nft.SrcAddr4, nft.DstAddr4, nft.OriginalSrc4, nft.ReplySrc4, nft.SrcAddr6,
			nft.DstAddr6, nft.OriginalSrc6, nft.ReplySrc6:
			address, _ = netip.AddrFromSlice([]byte(key[:ruleworld.SizeOf(f)]))
			around(address)
			key = key[ruleworld.SizeOf(f):]
		case nft.InIface, nft.OutIface:
			name := strings.TrimRight(key[:16], "\x00")
			if !slices.Contains(w.where[address], name) {
				w.where[address] = append(w.where[address], name)
			}
			key = key[16:]
		case nft.L4Proto:
			protocol, key = key[0], key[4:]
		case nft.DstPort:
			number, key = []byte(key[:2]), key[4:]
		case nft.ForeignField:
			return
		}
	}
	if number != nil {
		port(protocol, binary.BigEndian.Uint16(number))
	}
}

// wrongVeth belongs to no pod, and tunnelLink to the pod network.
const wrongVeth, tunnelLink = "slupwrong", "sluice.1"

// each calls f with every packet of some hooks until it returns false. The packet is f's for the
// call only.
func (w *packetSpace) each(hooks map[nft.Hook]bool, f func(p *tracedPacket) bool) bool {
	kinds := func(p tracedPacket) bool { return !hooks[p.hook] || w.kinds(p, f) }
	for _, src := range w.addresses {
		for _, dst := range w.addresses {
			if src.Is4() != dst.Is4() {
				continue
			}
			for _, iif := range append([]string{"up", tunnelLink, wrongVeth}, w.where[src]...) {
				for _, oif := range append([]string{"up", tunnelLink, wrongVeth}, w.where[dst]...) {
					if !kinds(tracedPacket{Packet: ruleworld.Packet{Src: src, Dst: dst, Iif: iif,
						Oif: oif}, hook: nft.HookForward}) {
						return false
					}
				}
				for _, hook := range []nft.Hook{nft.HookInput, nft.HookPrerouting} {
					p := tracedPacket{Packet: ruleworld.Packet{Src: src, Dst: dst, Iif: iif,
						LocalDst: hook == nft.HookInput}, hook: hook}
					if !kinds(p) {
						return false
					}
				}
			}
			for _, hook := range []nft.Hook{nft.HookOutput, nft.HookPostrouting} {
				for _, local := range []bool{true, false} {
					if !kinds(tracedPacket{Packet: ruleworld.Packet{Src: src, Dst: dst, Oif: "up",
						LocalSrc: local}, hook: hook}) {
						return false
					}
				}
			}
		}
	}
	return true
}

// kinds varies protocol, port and what connection tracking says.
func (w *packetSpace) kinds(p tracedPacket, f func(p *tracedPacket) bool) bool {
	packet := new(tracedPacket) // one for all: there are millions
	try := func(v tracedPacket) bool {
		*packet = v
		return f(packet)
	}
	for _, pp := range w.ports {
		v := p
		v.Protocol, v.Port, v.state = pp.protocol, pp.port, nft.CTNew
		if !try(v) {
			return false
		}
	}
	if p.hook == nft.HookPrerouting {
		for _, pp := range []protoPort{{policy.ProtocolTCP, 80}, {policy.ProtocolUDP, 8472}} {
			v := p
			v.Protocol, v.Port, v.state, v.noBack = pp.protocol, pp.port, nft.CTNew, true
			if !try(v) {
				return false
			}
		}
		return true
	}
	for _, ends := range w.ends(p) {
		v := p
		v.Protocol, v.state, v.OrigSrc, v.ReplySrc = policy.ProtocolICMPv6, nft.CTRelated,
			ends[0], ends[1]
		if p.Src.Is4() {
			v.Protocol = policy.ProtocolICMP
		}
		if !try(v) {
			return false
		}
	}
	for _, state := range []nft.CTState{nft.CTInvalid, nft.CTEstablished, nft.CTRelated,
		nft.CTUntracked} {
		for _, pp := range []protoPort{{policy.ProtocolTCP, 80}, {policy.ProtocolUDP, 8472}, {1, 0},
			{policy.ProtocolICMPv6, 0}} {
			v := p
			v.Protocol, v.Port, v.state, v.noSYN = pp.protocol, pp.port, state, true
			if state == nft.CTUntracked {
				v.nd, v.noSYN = pp.protocol == policy.ProtocolICMPv6, false
			}
			if !try(v) {
				return false
			}
		}
	}
	v := p
	v.Protocol, v.Port, v.state, v.noSYN = policy.ProtocolTCP, 80, nft.CTNew, true
	return try(v)
}

// ends are the connections that an error can be about, where that is asked. In what is sent to one
// address either end can be anybody; to the others, the sender or not.
func (w *packetSpace) ends(p tracedPacket) [][2]netip.Addr {
	if p.hook == nft.HookPostrouting {
		return nil
	}
	stranger := w.addresses[slices.IndexFunc(w.addresses, func(a netip.Addr) bool {
		return a.Is4() == p.Src.Is4()
	})]
	out := [][2]netip.Addr{{stranger, stranger}}
	list := []netip.Addr{p.Src}
	if p.Dst == stranger {
		list = w.addresses
	}
	for _, a := range list {
		if a.Is4() == p.Src.Is4() {
			out = append(out, [2]netip.Addr{a, stranger}, [2]netip.Addr{stranger, a})
		}
	}
	return out
}

// differ finds a packet that two rulesets treat differently, or nil.
func differ(a, b *nft.Ruleset) *tracedPacket {
	basesA, basesB := basesOf(a), basesOf(b)
	hooks := map[nft.Hook]bool{} // where they can differ
	for hook := nft.HookPrerouting; hook <= nft.HookPostrouting; hook++ {
		hooks[hook] = reachable(a, basesA[hook]) != reachable(b, basesB[hook])
	}
	var found *tracedPacket
	newPacketSpace(a, b).each(hooks, func(p *tracedPacket) bool {
		if traceOne(a, basesA, p) != traceOne(b, basesB, p) {
			example := *p
			found = &example
		}
		return found == nil
	})
	return found
}

// reachable is the text of all that a hook's packets can meet.
func reachable(rs *nft.Ruleset, bases []*nft.Chain) string {
	seen := map[string]bool{}
	var text strings.Builder
	var visit func(c *nft.Chain)
	visitSet := func(name string) {
		s := rs.Sets[name]
		if seen["set "+name] {
			return
		}
		seen["set "+name] = true
		text.WriteString(s.String())
		for _, v := range s.Elements {
			if v.Kind == nft.Jump {
				visit(rs.Chains[v.Chain])
			}
		}
	}
	visit = func(c *nft.Chain) {
		if seen[c.Name] {
			return
		}
		seen[c.Name] = true
		for _, r := range c.Rules {
			fmt.Fprintf(&text, "%s: %+v\n", c.Name, r.Statements)
			for _, s := range r.Statements {
				switch s := s.(type) {
				case nft.InSet:
					visitSet(s.Set)
				case nft.Dispatch:
					visitSet(s.Map)
				case nft.DNAT:
					visitSet(s.Map)
				case nft.Do:
					if s.Kind == nft.Jump {
						visit(rs.Chains[s.Chain])
					}
				}
			}
		}
	}
	for _, c := range bases {
		visit(c)
	}
	return text.String()
}
