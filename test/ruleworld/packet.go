package ruleworld

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/nft"
)

// Packet is the first packet of a flow at one hook.
type Packet struct {
	Src, Dst netip.Addr
	Iif, Oif string
	Protocol uint8
	Port     uint16
	LocalSrc bool // the source is an address of the node
	LocalDst bool
	// who sent the first packet of the connection, and who sends the answers
	OrigSrc, ReplySrc netip.Addr
}

// firstFilter is a priority before all chains that judge, and after those that translate on the way
// in.
const firstFilter = -10

// Traverse sends a packet through the base chains of a hook, in order, and says whether it passes.
// It knows the typed ruleset and nothing else.
func Traverse(rs *nft.Ruleset, hook nft.Hook, p Packet) (passes bool, err error) {
	byPriority := map[int]*nft.Chain{}
	for _, c := range rs.Chains {
		if c.Base == nil || c.Base.Hook != hook {
			continue
		}
		if byPriority[c.Base.Priority] != nil {
			return false, fmt.Errorf("two base chains at priority %d", c.Base.Priority)
		}
		byPriority[c.Base.Priority] = c
	}
	for _, priority := range slices.Sorted(maps.Keys(byPriority)) {
		c := byPriority[priority]
		if priority < firstFilter {
			continue
		}
		verdict, err := walk(rs, c, p, 0)
		if err != nil || verdict == nft.Drop {
			return false, err
		}
	}
	return true, nil
}

// walk runs a chain; NoVerdict means that the packet fell off its end.
func walk(rs *nft.Ruleset, c *nft.Chain, p Packet, depth int) (nft.VerdictKind, error) {
	if depth > 8 {
		return nft.Drop, fmt.Errorf("chain %s: jumps too deep", c.Name)
	}
	for _, r := range c.Rules {
		verdict, err := run(rs, r, p)
		if err != nil {
			return nft.Drop, fmt.Errorf("chain %s: %w", c.Name, err)
		}
		switch verdict.Kind {
		case nft.Accept, nft.Drop:
			return verdict.Kind, nil
		case nft.NoVerdict:
		case nft.Return:
			return nft.NoVerdict, nil
		case nft.Jump:
			target := rs.Chains[verdict.Chain]
			if target == nil {
				return nft.Drop,
					fmt.Errorf("chain %s jumps to %s, which isn't there", c.Name, verdict.Chain)
			}
			if kind, err := walk(rs, target, p, depth+1); err != nil || kind != nft.NoVerdict {
				return kind, err
			}
		default:
			return nft.Drop,
				fmt.Errorf("chain %s: verdict %v, which no policy needs", c.Name, verdict)
		}
	}
	return nft.NoVerdict, nil
}

// run evaluates one rule; a rule that doesn't match gives no verdict.
func run(rs *nft.Ruleset, r nft.Rule, p Packet) (nft.Verdict, error) {
	for _, s := range r.Statements {
		matched, verdict, err := Step(rs, s, p)
		if err != nil || !matched || verdict.Kind != nft.NoVerdict {
			return verdict, err
		}
	}
	return nft.Verdict{}, nil
}

// Step evaluates one statement: whether the packet matches it, and its verdict.
func Step(rs *nft.Ruleset, s nft.Statement,
	p Packet) (matched bool, verdict nft.Verdict, err error) {
	switch s := s.(type) {
	case nft.InSet:
		matched, err = p.in(rs, s)
		return matched, verdict, err
	case nft.Dispatch:
		verdict, err = p.dispatch(rs, s)
		return true, verdict, err
	case nft.Do:
		return true, s.Verdict, nil
	}
	matched, known := p.matches(s)
	if !known {
		return false, verdict, fmt.Errorf("the interpreter doesn't know %T", s)
	}
	return matched, verdict, nil
}

// matches evaluates a statement that has no verdict and looks into no set.
func (p Packet) matches(s nft.Statement) (matched, known bool) {
	switch s := s.(type) {
	case nft.MatchCT: // the first packet of a flow is new
		return s.State&nft.CTNew != 0, true
	case nft.MatchND, nft.MatchTCPNoSYN, nft.ResetTCP, nft.MatchCTLabel, nft.SetCTLabel:
		return false, true
	case nft.Count, nft.Sample:
		return true, true
	case nft.MatchLocalSrc:
		return p.LocalSrc, true
	case nft.MatchLocalDst:
		return p.LocalDst, true
	case nft.MatchProto:
		return p.Protocol == s.Proto, true
	case nft.MatchPort:
		return p.Protocol == s.Proto && s.First <= p.Port && p.Port <= s.Last, true
	case nft.MatchIface:
		name := p.Iif
		if s.Field == nft.OutIface {
			name = p.Oif
		}
		prefix, wildcard := strings.CutSuffix(s.Name, "*")
		is := name == s.Name || wildcard && strings.HasPrefix(name, prefix)
		return is != s.Others, true
	case nft.MatchAddr:
		e, ok := p.Key([]nft.Field{s.Field})
		return ok && e == nft.AddrElement(s.Addr), true
	case nft.MatchPrefix:
		a := p.Src
		if s.Field == nft.DstAddr4 || s.Field == nft.DstAddr6 {
			a = p.Dst
		}
		return s.Prefix.Contains(a), true
	}
	return false, false
}

// Key concatenates fields of the packet; ok is false for the other family's.
func (p Packet) Key(fields []nft.Field) (e nft.Element, ok bool) {
	var b strings.Builder
	for _, f := range fields {
		switch f {
		case nft.SrcAddr4, nft.SrcAddr6, nft.DstAddr4, nft.DstAddr6, nft.OriginalSrc4,
			nft.OriginalSrc6, nft.ReplySrc4, nft.ReplySrc6:
			a := p.address(f)
			if !a.IsValid() || a.BitLen() != 8*SizeOf(f) {
				return nft.Element{}, false
			}
			b.Write(a.AsSlice())
		case nft.InIface:
			b.WriteString(p.Iif)
			b.WriteString(padding[len(p.Iif):])
		case nft.OutIface:
			b.WriteString(p.Oif)
			b.WriteString(padding[len(p.Oif):])
		case nft.L4Proto:
			b.Write([]byte{p.Protocol, 0, 0, 0})
		case nft.DstPort:
			b.Write([]byte{byte(p.Port >> 8), byte(p.Port), 0, 0})
		case nft.ForeignField:
			return nft.Element{}, false
		}
	}
	return nft.Element{First: b.String()}, true
}

// padding is that of an interface's name.
const padding = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// address is what the packet has in a field of addresses.
func (p Packet) address(f nft.Field) netip.Addr {
	switch f {
	case nft.SrcAddr4, nft.SrcAddr6:
		return p.Src
	case nft.DstAddr4, nft.DstAddr6:
		return p.Dst
	case nft.OriginalSrc4, nft.OriginalSrc6:
		return p.OrigSrc
	default:
		return p.ReplySrc
	}
}

// SizeOf is how many bytes a field takes up in a key.
func SizeOf(f nft.Field) int {
	switch f {
	case nft.L4Proto, nft.DstPort, nft.SrcAddr4, nft.DstAddr4, nft.OriginalSrc4, nft.ReplySrc4:
		return 4
	default:
		return 16
	}
}

func (p Packet) in(rs *nft.Ruleset, s nft.InSet) (bool, error) {
	set := rs.Sets[s.Set]
	if set == nil || set.Verdicts {
		return false, fmt.Errorf("set %s isn't there", s.Set)
	}
	e, ok := p.Key(s.Fields)
	if !ok {
		return false, nil
	}
	if !set.Interval {
		_, in := set.Elements[e]
		return in, nil
	}
	for r := range set.Elements {
		if len(r.First) != len(e.First) {
			return false, fmt.Errorf("set %s is keyed by %d bytes, the rule by %d", s.Set,
				len(r.First), len(e.First))
		}
		if within(e.First, r, s.Fields) {
			return true, nil
		}
	}
	return false, nil
}

// within compares field by field, as concatenated ranges do.
func within(key string, r nft.Element, fields []nft.Field) bool {
	at := 0
	for _, f := range fields {
		size := SizeOf(f)
		part := key[at : at+size]
		if part < r.First[at:at+size] || part > r.Last[at:at+size] {
			return false
		}
		at += size
	}
	return true
}

func (p Packet) dispatch(rs *nft.Ruleset, s nft.Dispatch) (nft.Verdict, error) {
	set := rs.Sets[s.Map]
	if set == nil || !set.Verdicts {
		return nft.Verdict{}, fmt.Errorf("map %s isn't there", s.Map)
	}
	e, ok := p.Key(s.Fields)
	if !ok {
		return nft.Verdict{}, nil
	}
	return set.Elements[e], nil
}
