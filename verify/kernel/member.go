package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"
)

// memberships know what rules ask about single addresses: which sets they are in, and which
// comparisons they meet. Addresses of which all answers are the same have one number.
type memberships struct {
	families [2]familyMembers // IPv4, IPv6
	numbers  numbering
	tokens   numbering
}

// familyMembers is what is asked of the addresses of one IP version.
type familyMembers struct {
	exact map[netip.Addr][]int32 // tokens of keys and comparisons with this very address
	// cuts are where ranges begin, and follow on where they end: between two of them an address is
	// in the same ranges. in are those, by cut, made when first asked for.
	ranges []*index
	cuts   []netip.Addr
	in     map[int][]byte
	others []*match // comparisons with parts of addresses
	parts  []*index // keys with parts of addresses, or with both
}

// newMemberships is about the rules of some chains, and the ways in which they look sets up.
func newMemberships(chains []*chain, indexes []*index) memberships {
	m := memberships{numbers: numbering{}, tokens: numbering{}}
	for i := range m.families {
		m.families[i] = familyMembers{exact: map[netip.Addr][]int32{}, in: map[int][]byte{}}
	}
	for _, ix := range indexes {
		for i, is4 := range []bool{true, false} {
			m.addIndex(&m.families[i], ix, is4)
		}
	}
	seen := map[string]bool{}
	for _, c := range chains {
		for s := range c.steps {
			t, ok := s.(*match)
			if !ok || !t.from.ofAddress() {
				continue
			}
			text := fmt.Sprintf("%v %x %x %x %d", t.from, t.mask, t.first, t.last, t.version)
			if seen[text] {
				continue
			}
			seen[text] = true
			for i, is4 := range []bool{true, false} {
				m.addMatch(&m.families[i], t, is4)
			}
		}
	}
	for i := range m.families {
		f := &m.families[i]
		slices.SortFunc(f.cuts, netip.Addr.Compare)
		f.cuts = slices.Compact(f.cuts)
	}
	return m
}

// applies reports whether a rule that asks about an IP version comes to ask about another.
func applies(version int, is4 bool) bool { return version == 0 || (version == 4) == is4 }

// whole reports whether a source is all of an address.
func whole(s source, is4 bool) bool {
	_, _, ok := s.addressPart(is4)
	return ok && s.length == sizeOf(is4)
}

// A numbering numbers texts, from 1 on.
type numbering map[string]int32

func (n numbering) of(text string) int32 {
	if n[text] == 0 {
		n[text] = int32(len(n)) + 1
	}
	return n[text]
}

func (m *memberships) addIndex(f *familyMembers, ix *index, is4 bool) {
	if !applies(ix.version, is4) || ix.set.verdicts {
		return // verdicts are looked up by the address itself
	}
	at, addresses, pieces, begin := 0, 0, 0, 0
	for _, part := range ix.parts {
		if _, _, ok := part.addressPart(is4); ok && whole(part, is4) {
			addresses++
			begin = at
		} else if ok {
			pieces++
		}
		if !part.symbolic() {
			at += part.length
		}
	}
	switch {
	case addresses == 0 && pieces == 0:
	case pieces > 0:
		f.parts = append(f.parts, ix)
	case addresses > 1:
		m.addPairs(f, ix, is4)
	case ix.ranges != nil:
		f.ranges = append(f.ranges, ix)
		for _, e := range ix.ranges {
			f.cuts = append(f.cuts, addrOf(e.first))
			if after := addrOf(e.last).Next(); after.IsValid() {
				f.cuts = append(f.cuts, after)
			}
		}
	default:
		size := sizeOf(is4)
		for key, hits := range ix.keys {
			a := addrOf([]byte(key[begin : begin+size]))
			text := fmt.Sprintf("%d %q %q %v", ix.id, key[:begin], key[begin+size:], hits[0].region)
			f.exact[a] = append(f.exact[a], m.tokens.of(text))
		}
	}
}

// addPairs is addIndex of keys of several addresses: each of those is like no other.
func (m *memberships) addPairs(f *familyMembers, ix *index, is4 bool) {
	for key := range ix.keys {
		at := 0
		for _, part := range ix.parts {
			if whole(part, is4) {
				a := addrOf([]byte(key[at : at+part.length]))
				f.exact[a] = append(f.exact[a], m.tokens.of("in a pair: "+a.String()))
			}
			if !part.symbolic() {
				at += part.length
			}
		}
	}
}

func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (m *memberships) addMatch(f *familyMembers, t *match, is4 bool) {
	if _, _, ok := t.from.addressPart(is4); !ok || !applies(t.version, is4) {
		return
	}
	if whole(t.from, is4) && t.mask == nil && len(t.first) == t.from.length &&
		bytes.Equal(t.first, t.last) {
		a := addrOf(t.first)
		f.exact[a] = append(f.exact[a], m.tokens.of(fmt.Sprintf("is %v %x", t.from, t.first)))
		return
	}
	f.others = append(f.others, t)
}

// name numbers an address.
func (m *memberships) name(a netip.Addr) int32 {
	f := &m.families[1]
	if a.Is4() {
		f = &m.families[0]
	}
	var text []byte
	for _, t := range slices.Sorted(slices.Values(f.exact[a])) {
		text = binary.NativeEndian.AppendUint32(text, uint32(t))
	}
	text = append(text, '|')
	text = append(text, f.inside(a)...)
	c := Class{Src: a, Dst: a, OrigSrc: a, ReplySrc: a}
	var v value
	for _, t := range f.others {
		// An error is one for every address.
		ok := v.read(&c, t.from, true, nil) == nil
		if ok {
			ok, _ = t.holds(&v)
		}
		text = append(text, byte(boolNumber(ok)))
	}
	if len(f.parts) > 0 && f.inParts(a) {
		text = append(text, a.AsSlice()...)
	}
	if a.Is4() {
		text = append(text, '4')
	}
	return m.numbers.of(string(text))
}

// inside lists the ranges that an address is in.
func (f *familyMembers) inside(a netip.Addr) []byte {
	cut := sort.Search(len(f.cuts), func(i int) bool { return a.Less(f.cuts[i]) })
	if list, ok := f.in[cut]; ok {
		return list
	}
	list := make([]byte, (len(f.ranges)+7)/8)
	key := a.AsSlice()
	for i, ix := range f.ranges {
		if inRanges(ix.ranges, key) {
			list[i/8] |= 1 << (i % 8)
		}
	}
	f.in[cut] = list
	return list
}

// inParts reports whether an address may be part of a key that is made of more than it: such an
// address is like no other.
func (f *familyMembers) inParts(a netip.Addr) bool {
	b := a.AsSlice()
	for _, ix := range f.parts {
		for key := range ix.keys {
			if bytes.Contains([]byte(key), b) {
				return true
			}
		}
		for _, part := range ix.parts {
			if !whole(part, a.Is4()) && part.kind == networkHeader {
				return true
			}
		}
	}
	return false
}

// SignatureAt numbers addresses as Evaluator's Signature does, but goes by the rules alone that
// packets can meet at some hooks: also by those that look up verdicts, for which each address is
// one of its own.
func (p *Program) SignatureAt(hooks ...Hook) func(netip.Addr) string {
	chains := p.reached(hooks)
	var indexes []*index
	byItself := false
	for _, c := range chains {
		for s := range c.steps {
			if l, ok := s.(*lookup); ok {
				byItself = byItself || l.verdicts
				if !slices.Contains(indexes, l.index) {
					indexes = append(indexes, l.index)
				}
			}
		}
	}
	m := newMemberships(chains, indexes)
	return func(a netip.Addr) string {
		if byItself {
			return a.String()
		}
		return fmt.Sprint(m.name(a))
	}
}

// reached lists the chains that packets can come to at some hooks.
func (p *Program) reached(hooks []Hook) []*chain {
	seen := map[*chain]bool{}
	var out []*chain
	var visit func(c *chain)
	visit = func(c *chain) {
		if seen[c] {
			return
		}
		seen[c] = true
		out = append(out, c)
		for s := range c.steps {
			for _, to := range targets(s) {
				visit(to)
			}
		}
	}
	for _, h := range hooks {
		for _, c := range p.bases[h] {
			visit(c)
		}
	}
	return out
}
