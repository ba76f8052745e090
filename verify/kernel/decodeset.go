package kernel

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Attributes and flags that x/sys doesn't name.
const (
	setHandle         = 16
	setKind, setCount = 19, 20 // the kernel's implementation of it, and its size
	setDescConcat     = 2
	setFieldLen       = 1
	flagConcat        = 0x80
	elemKeyEnd        = 10
	knownFlags        = unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | flagConcat
	maxKeyLen         = 64
)

func (p *Program) decodeSet(body []byte) error {
	if is, err := ours(body, unix.NFTA_SET_TABLE); err != nil || !is {
		return err
	}
	numeric := kinds{unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE}
	f, n, err := parse(body, numeric, unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME,
		unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC,
		unix.NFTA_SET_ID, unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_USERDATA, unix.NFTA_SET_PAD,
		setHandle, setKind, setCount)
	if err != nil {
		return err
	}
	s := &set{name: text(f[unix.NFTA_SET_NAME])}
	if p.sets[s.name] != nil || s.name == "" {
		return fmt.Errorf("%q is there twice, or has no name", s.name)
	}
	if n[0]&^knownFlags != 0 || n[1] == 0 || n[1] > maxKeyLen {
		return fmt.Errorf("%s: flags %#x, keys of %d bytes", s.name, n[0], n[1])
	}
	s.keyLen = int(n[1])
	s.interval = n[0]&unix.NFT_SET_INTERVAL != 0
	if n[0]&unix.NFT_SET_MAP != 0 {
		s.verdicts = n[2] == unix.NFT_DATA_VERDICT
		s.data = !s.verdicts
	}
	if err := s.decodeDescription(f[unix.NFTA_SET_DESC], n[0]&flagConcat != 0); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	p.sets[s.name] = s
	return nil
}

// decodeDescription reads the lengths of the fields of a concatenation.
func (s *set) decodeDescription(body []byte, concat bool) error {
	f, err := fields(body, unix.NFTA_SET_DESC_SIZE, setDescConcat)
	if err != nil {
		return err
	}
	list, err := attrs(f[setDescConcat])
	if err != nil {
		return err
	}
	total := 0
	for _, field := range list {
		_, n, err := parse(field.data, kinds{setFieldLen})
		if err != nil {
			return err
		}
		length := n[0]
		if length == 0 || length > maxKeyLen {
			return fmt.Errorf("a field of %d bytes", length)
		}
		s.fields = append(s.fields, int(length))
		total += 4 * wordsOf(int(length))
	}
	if s.interval && concat && (len(s.fields) == 0 || total != s.keyLen) {
		return fmt.Errorf("fields of %d bytes make no key of %d", total, s.keyLen)
	}
	if !s.interval || !concat {
		s.fields = nil
	}
	return nil
}

// decodeElements reads one message of a dump of elements.
func (s *set) decodeElements(body []byte) error {
	f, err := fields(body, unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET,
		unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	if err != nil {
		return err
	}
	if text(f[unix.NFTA_SET_ELEM_LIST_TABLE]) != tableName ||
		text(f[unix.NFTA_SET_ELEM_LIST_SET]) != s.name {
		return errors.New("elements of another set")
	}
	list, err := attrs(f[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
	if err != nil {
		return err
	}
	for _, a := range list {
		if err := s.decodeElement(a.data); err != nil {
			return fmt.Errorf("element %d: %w", len(s.elements), err)
		}
	}
	return nil
}

func (s *set) decodeElement(body []byte) error {
	f, n, err := parse(body, kinds{unix.NFTA_SET_ELEM_FLAGS}, unix.NFTA_SET_ELEM_KEY, elemKeyEnd,
		unix.NFTA_SET_ELEM_DATA, unix.NFTA_SET_ELEM_PAD, unix.NFTA_SET_ELEM_USERDATA)
	if err != nil {
		return err
	}
	flags := n[0]
	isEnd := flags&unix.NFT_SET_ELEM_INTERVAL_END != 0
	if flags&^unix.NFT_SET_ELEM_INTERVAL_END != 0 || isEnd && (!s.interval || s.fields != nil) {
		return fmt.Errorf("flags %#x", flags)
	}
	e := element{}
	if e.first, err = dataValue(f[unix.NFTA_SET_ELEM_KEY]); err != nil {
		return err
	}
	e.last = e.first
	if end, ok := f[elemKeyEnd]; ok {
		if e.last, err = dataValue(end); err != nil {
			return err
		}
		if s.fields == nil {
			return errors.New("the end of a range, where none can be")
		}
	}
	if len(e.first) != s.keyLen || len(e.last) != s.keyLen {
		return fmt.Errorf("a key of %d bytes, not %d", len(e.first), s.keyLen)
	}
	switch {
	case isEnd:
		e.last = nil // finish makes ranges of these
	case s.verdicts:
		if e.verdict, err = dataVerdict(f[unix.NFTA_SET_ELEM_DATA]); err != nil {
			return err
		}
	case (f[unix.NFTA_SET_ELEM_DATA] != nil) != s.data:
		return errors.New("data where none belongs, or none where it does")
	}
	s.elements = append(s.elements, e)
	return nil
}

// finish makes ranges of the starts and ends that the kernel lists for a set of intervals of one
// field: a start's range ends before the next of either kind. Exact sets are sorted.
func (s *set) finish() error {
	slices.SortStableFunc(s.elements, func(a, b element) int {
		// An end, which has no last, comes before a start: ranges that touch.
		return cmp.Or(bytes.Compare(a.first, b.first), bytes.Compare(a.last, b.last))
	})
	if !s.interval || s.fields != nil {
		return nil
	}
	var out []element
	for i, e := range s.elements {
		if e.last == nil {
			continue
		}
		e.last = ones(s.keyLen)
		if i+1 < len(s.elements) {
			next := s.elements[i+1]
			if bytes.Equal(next.first, e.first) {
				return errors.New("two ranges begin alike")
			}
			e.last = before(next.first)
		}
		out = append(out, e)
	}
	s.elements = out
	return nil
}

// before is the number before a positive one.
func before(n []byte) []byte {
	out := bytes.Clone(n)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]--
		if out[i] != 0xff {
			break
		}
	}
	return out
}
