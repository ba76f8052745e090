package kernel

import (
	"maps"
	"net/netip"
	"slices"
)

// Addresses lists the addresses that rules and sets name: the ends of ranges, members, what is
// compared with. Whatever is between two neighbours of it is treated alike.
func (p *Program) Addresses() []netip.Addr {
	var out []netip.Addr
	add := func(b []byte) {
		if a := addrOf(b); a.IsValid() {
			out = append(out, a)
		}
	}
	for _, ix := range p.indexes {
		for _, e := range ix.set.elements {
			for part, field := range e.split(ix.parts) {
				if part.ofAddress() {
					add(field.first)
					add(field.last)
				}
			}
		}
	}
	for _, c := range p.chains {
		for s := range c.steps {
			if t, ok := s.(*match); ok && t.from.ofAddress() {
				for _, b := range t.ends() {
					add(b)
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// ends are the first and last address that a comparison names, as far as they can be told: what it
// leaves open is 0 or 1.
func (t *match) ends() [][]byte {
	size := 4
	switch {
	case t.from.isEnd():
		size = t.from.length
	case t.from.length > 4 || t.from.offset >= 20 || t.version == 6:
		size = 16
	case t.from.offset == hopOffset6:
		return nil
	}
	_, begin, ok := t.from.addressPart(size == 4)
	if !ok || begin+len(t.first) > size {
		return nil
	}
	first, last := make([]byte, size), ones(size)
	copy(first[begin:], t.first)
	copy(last[begin:], t.last)
	for i, mask := range t.mask {
		last[begin+i] |= ^mask
	}
	return [][]byte{first, last}
}

// Dispatched lists the addresses that maps give verdicts for: Evaluator's Signature doesn't tell
// them apart.
func (p *Program) Dispatched() []netip.Addr {
	var out []netip.Addr
	for _, ix := range p.indexes {
		if !ix.set.verdicts {
			continue
		}
		for _, e := range ix.set.elements {
			for part, field := range e.split(ix.parts) {
				if a := addrOf(field.first); part.ofAddress() && a.IsValid() {
					out = append(out, a)
				}
			}
		}
	}
	return out
}

// Interfaces lists the names of interfaces, and the beginnings of names, that the rules of some
// hooks name, also by way of sets.
func (p *Program) Interfaces(hooks ...Hook) []string {
	found := map[string]bool{}
	for _, c := range p.reached(hooks) {
		for s := range c.steps {
			interfacesOf(s, found)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func interfacesOf(s step, found map[string]bool) {
	switch s := s.(type) {
	case *match:
		if s.from.kind == inName || s.from.kind == outName {
			found[text(s.first)] = true
		}
	case *lookup:
		for _, e := range s.set.elements {
			for part, field := range e.split(s.parts) {
				if part.kind == inName || part.kind == outName {
					found[text(field.first)] = true
				}
			}
		}
	}
}
