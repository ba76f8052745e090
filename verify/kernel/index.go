package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
)

// A match compares a value with a range, both ends included, as many bytes as those have.
type match struct {
	from        source
	mask        []byte // nil: all bits count
	first, last []byte
	invert      bool
	version     int    // the IP version that the rule has asked for before, or 0
	region      Region // of a symbolic source: where it matches
}

// check refuses what evaluation can't tell, and works out the region of a symbolic source.
func (t *match) check() error {
	kind := t.from.kind
	exact := bytes.Equal(t.first, t.last)
	switch {
	case kind == constant:
		return errors.New("a comparison of a constant")
	case kind == srcLocal || kind == dstLocal:
		if !exact || t.mask != nil || !bytes.Equal(t.first, localType) {
			return errors.New("an address type other than local")
		}
	case kind == routeBack:
		number := binary.NativeEndian
		if !exact || t.mask != nil || len(t.first) != 4 || number.Uint32(t.first) > 1 {
			return errors.New("a comparison of a route, but not whether there is one")
		}
	case t.from.symbolic():
		if t.mask != nil || len(t.first) != t.from.length {
			return fmt.Errorf("some bits of %s", t.from)
		}
		spans := t.from.spans(t.first, t.last)
		t.region = Union(spans)
		if t.invert {
			t.region = Everything().Minus(t.region)
		}
	}
	return nil
}

// spans are the points at which a symbolic source is within a range.
func (s source) spans(first, last []byte) []Span {
	if s == protocolField {
		if first[0] > last[0] {
			return nil
		}
		return []Span{{uint32(first[0]) << 16, uint32(last[0])<<16 | 0xffff}}
	}
	low, high := uint32(first[0])<<8|uint32(first[1]), uint32(last[0])<<8|uint32(last[1])
	if low > high {
		return nil
	}
	out := make([]Span, 256)
	for proto := range out {
		out[proto] = Span{uint32(proto)<<16 | low, uint32(proto)<<16 | high}
	}
	return out
}

// A lookup asks whether fields are in a set, or what a map says of them.
type lookup struct {
	name     string
	set      *set
	index    *index
	parts    []source
	invert   bool
	verdicts bool
	version  int
}

// An index is a set as rules look it up that fill its key from the same fields. The symbolic fields
// become regions, the others stay keys.
type index struct {
	id      int
	set     *set
	parts   []source
	version int
	// One of the three: keys of an exact set, ranges of one concrete field, or a set of which
	// nothing is concrete.
	keys   map[string][]hit
	ranges []element
	always []hit
}

// A hit is a region in which an element is found.
type hit struct {
	region  Region
	verdict verdict
}

func (p *Program) linkIndex(s *lookup) error {
	use := fmt.Sprintf("%s %d %v", s.name, s.version, s.parts)
	if p.byUse[use] == nil {
		ix := &index{id: len(p.indexes), set: s.set, parts: s.parts, version: s.version}
		if err := ix.fill(); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
		p.byUse[use] = ix
		p.indexes = append(p.indexes, ix)
	}
	s.index = p.byUse[use]
	return nil
}

func (ix *index) fill() error {
	symbolic, size := 0, 0
	for _, part := range ix.parts {
		if part.kind == constant {
			return errors.New("a key of a constant")
		}
		if part.symbolic() {
			symbolic++
		}
		size += 4 * wordsOf(part.length)
	}
	s := ix.set
	switch {
	case len(ix.parts) == 1 && ix.parts[0].length != s.keyLen ||
		len(ix.parts) > 1 && size != s.keyLen:
		return fmt.Errorf("keys of %d bytes, looked up by %v", s.keyLen, ix.parts)
	case s.interval && s.fields == nil && len(ix.parts) > 1:
		return errors.New("ranges of several fields as one")
	case s.fields != nil && (symbolic != len(ix.parts) ||
		!slices.EqualFunc(s.fields, ix.parts, func(n int, p source) bool { return n == p.length })):
		return fmt.Errorf("ranges of %v", ix.parts)
	case s.interval && symbolic == 0:
		if s.verdicts {
			return errors.New("verdicts by ranges")
		}
		ix.ranges = s.elements
		return nil
	}
	ix.fillKeys(symbolic == len(ix.parts))
	return nil
}

// fillKeys makes keys of the concrete fields, or none where there are none.
func (ix *index) fillKeys(allSymbolic bool) {
	s := ix.set
	ix.keys = make(map[string][]hit, len(s.elements))
	regions := map[string][]Span{}
	for _, e := range s.elements {
		key, spans := ix.split(e)
		if s.verdicts {
			ix.keys[key] = append(ix.keys[key], hit{Union(spans), e.verdict})
			continue
		}
		regions[key] = append(regions[key], spans...)
	}
	for key, spans := range regions {
		ix.keys[key] = []hit{{region: Union(spans)}}
	}
	if allSymbolic {
		ix.always, ix.keys = ix.keys[""], nil
	}
}

// split takes an element apart: the bytes of its concrete fields, and where its symbolic ones are.
func (ix *index) split(e element) (key string, spans []Span) {
	var concrete []byte
	region := Everything()
	for part, field := range e.split(ix.parts) {
		if part.symbolic() {
			region = region.And(Union(part.spans(field.first, field.last)))
			continue
		}
		concrete = append(concrete, field.first...)
	}
	return string(concrete), region
}

// split takes an element apart into the fields that make its key, each of whole words.
func (e element) split(parts []source) iter.Seq2[source, element] {
	return func(yield func(source, element) bool) {
		at := 0
		for _, part := range parts {
			end := at + part.length
			if !yield(part, element{first: e.first[at:end], last: e.last[at:end]}) {
				return
			}
			at += 4 * wordsOf(part.length)
		}
	}
}

// inRanges reports whether a value is in one of sorted, disjoint ranges.
func inRanges(ranges []element, value []byte) bool {
	i := sort.Search(len(ranges), func(i int) bool {
		return bytes.Compare(ranges[i].first, value) > 0
	})
	return i > 0 && bytes.Compare(value, ranges[i-1].last) <= 0
}
