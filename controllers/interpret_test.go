package controllers

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-net/sluice/nft"
)

// packet is the first packet of a flow at one hook.
type packet struct {
	src, dst netip.Addr
	iif, oif string
	protocol uint8
	port     uint16
	localSrc bool // the source is an address of the node
	localDst bool
	// who sent the first packet of the connection, and who sends the answers
	origSrc, replySrc netip.Addr
}

// traverse sends a packet through the base chains of a hook, in order, and
// says whether it passes. It knows the typed ruleset and nothing else.
func traverse(rs *nft.Ruleset, hook nft.Hook, p packet) (passes bool, err error) {
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
	for priority := -10; priority <= 10; priority++ {
		c := byPriority[priority]
		if c == nil {
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
func walk(rs *nft.Ruleset, c *nft.Chain, p packet, depth int) (nft.VerdictKind, error) {
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
				return nft.Drop, fmt.Errorf("chain %s jumps to %s, which isn't there", c.Name, verdict.Chain)
			}
			if kind, err := walk(rs, target, p, depth+1); err != nil || kind != nft.NoVerdict {
				return kind, err
			}
		default:
			return nft.Drop, fmt.Errorf("chain %s: verdict %v, which no policy needs", c.Name, verdict)
		}
	}
	return nft.NoVerdict, nil
}

// run evaluates one rule; a rule that doesn't match gives no verdict.
func run(rs *nft.Ruleset, r nft.Rule, p packet) (nft.Verdict, error) {
	for _, s := range r.Statements {
		matched, verdict, err := step(rs, s, p)
		if err != nil || !matched || verdict.Kind != nft.NoVerdict {
			return verdict, err
		}
	}
	return nft.Verdict{}, nil
}

func step(rs *nft.Ruleset, s nft.Statement, p packet) (matched bool, verdict nft.Verdict, err error) {
	switch s := s.(type) {
	case nft.MatchCT: // the first packet of a flow is new
		return s.State&nft.CTNew != 0, verdict, nil
	case nft.MatchND, nft.MatchTCPNoSYN, nft.ResetTCP, nft.MatchCTLabel, nft.SetCTLabel:
		return false, verdict, nil
	case nft.Count, nft.Sample:
		return true, verdict, nil
	case nft.MatchLocalSrc:
		return p.localSrc, verdict, nil
	case nft.MatchLocalDst:
		return p.localDst, verdict, nil
	case nft.MatchProto:
		return p.protocol == s.Proto, verdict, nil
	case nft.MatchPort:
		return p.protocol == s.Proto && s.First <= p.port && p.port <= s.Last, verdict, nil
	case nft.MatchIface:
		name := p.iif
		if s.Field == nft.OutIface {
			name = p.oif
		}
		prefix, wildcard := strings.CutSuffix(s.Name, "*")
		return name == s.Name || wildcard && strings.HasPrefix(name, prefix), verdict, nil
	case nft.MatchAddr:
		e, ok := p.key([]nft.Field{s.Field})
		return ok && e == nft.AddrElement(s.Addr), verdict, nil
	case nft.MatchPrefix:
		a := p.src
		if s.Field == nft.DstAddr4 || s.Field == nft.DstAddr6 {
			a = p.dst
		}
		return s.Prefix.Contains(a), verdict, nil
	case nft.InSet:
		matched, err = p.in(rs, s)
		return matched, verdict, err
	case nft.Dispatch:
		verdict, err = p.dispatch(rs, s)
		return true, verdict, err
	case nft.Do:
		return true, s.Verdict, nil
	}
	return false, verdict, fmt.Errorf("the interpreter doesn't know %T", s)
}

// key concatenates fields of the packet; ok is false for the other family's.
func (p packet) key(fields []nft.Field) (e nft.Element, ok bool) {
	var b strings.Builder
	for _, f := range fields {
		switch f {
		case nft.SrcAddr4, nft.SrcAddr6, nft.DstAddr4, nft.DstAddr6, nft.OriginalSrc4, nft.OriginalSrc6, nft.ReplySrc4, nft.ReplySrc6:
			a := p.address(f)
			if !a.IsValid() || a.BitLen() != 8*sizeOf(f) {
				return nft.Element{}, false
			}
			b.Write(a.AsSlice())
		case nft.InIface:
			b.WriteString(p.iif)
			b.WriteString(padding[len(p.iif):])
		case nft.OutIface:
			b.WriteString(p.oif)
			b.WriteString(padding[len(p.oif):])
		case nft.L4Proto:
			b.Write([]byte{p.protocol, 0, 0, 0})
		case nft.DstPort:
			b.Write([]byte{byte(p.port >> 8), byte(p.port), 0, 0})
		case nft.ForeignField:
			return nft.Element{}, false
		}
	}
	return nft.Element{First: b.String()}, true
}

const padding = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // of an interface's name

// address is what the packet has in a field of addresses.
func (p packet) address(f nft.Field) netip.Addr {
	switch f {
	case nft.SrcAddr4, nft.SrcAddr6:
		return p.src
	case nft.DstAddr4, nft.DstAddr6:
		return p.dst
	case nft.OriginalSrc4, nft.OriginalSrc6:
		return p.origSrc
	default:
		return p.replySrc
	}
}

// sizeOf is how many bytes a field takes up in a key.
func sizeOf(f nft.Field) int {
	switch f {
	case nft.L4Proto, nft.DstPort, nft.SrcAddr4, nft.DstAddr4, nft.OriginalSrc4, nft.ReplySrc4:
		return 4
	default:
		return 16
	}
}

func (p packet) in(rs *nft.Ruleset, s nft.InSet) (bool, error) {
	set := rs.Sets[s.Set]
	if set == nil || set.Verdicts {
		return false, fmt.Errorf("set %s isn't there", s.Set)
	}
	e, ok := p.key(s.Fields)
	if !ok {
		return false, nil
	}
	if !set.Interval {
		_, in := set.Elements[e]
		return in, nil
	}
	for r := range set.Elements {
		if len(r.First) != len(e.First) {
			return false, fmt.Errorf("set %s is keyed by %d bytes, the rule by %d", s.Set, len(r.First), len(e.First))
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
		size := sizeOf(f)
		part := key[at : at+size]
		if part < r.First[at:at+size] || part > r.Last[at:at+size] {
			return false
		}
		at += size
	}
	return true
}

func (p packet) dispatch(rs *nft.Ruleset, s nft.Dispatch) (nft.Verdict, error) {
	set := rs.Sets[s.Map]
	if set == nil || !set.Verdicts {
		return nft.Verdict{}, fmt.Errorf("map %s isn't there", s.Map)
	}
	e, ok := p.key(s.Fields)
	if !ok {
		return nft.Verdict{}, nil
	}
	return set.Elements[e], nil
}
