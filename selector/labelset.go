package selector

import (
	"encoding/binary"
	"iter"
	"maps"
	"slices"
	"strings"
	"unique"
)

// LabelSet is the labels of an object. It doesn't change, and equal sets are ==. Objects with equal
// sets, such as the pods of a Deployment, share them in memory; one that no object has is given
// back. The zero value has no labels.
type LabelSet struct {
	// Keys and values, sorted by key, each behind its length as an unsigned varint.
	text unique.Handle[string]
}

// LabelSetOf returns the set of these labels.
func LabelSetOf(labels map[string]string) LabelSet {
	if len(labels) == 0 {
		return LabelSet{}
	}
	var text []byte
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		for _, word := range [...]string{key, labels[key]} {
			text = append(binary.AppendUvarint(text, uint64(len(word))), word...)
		}
	}
	return LabelSet{unique.Make(string(text))}
}

// All yields the labels, by key.
func (s LabelSet) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		var key, value string
		for rest := s.rest(); rest != ""; {
			key, rest = cutWord(rest)
			value, rest = cutWord(rest)
			if !yield(key, value) {
				return
			}
		}
	}
}

// Get returns the value of a key, and whether it is there.
func (s LabelSet) Get(key string) (value string, found bool) {
	for k, v := range s.All() {
		if k == key {
			return v, true
		}
	}
	return "", false
}

// String lists the labels for people, by key.
func (s LabelSet) String() string {
	var out []string
	for key, value := range s.All() {
		out = append(out, word(key)+"="+word(value))
	}
	return strings.Join(out, ", ")
}

// rest is the text of the whole set.
func (s LabelSet) rest() string {
	if s == (LabelSet{}) {
		return ""
	}
	return s.text.Value()
}

// cutWord takes the first word of a set's text.
func cutWord(text string) (word, rest string) {
	length, n := uint64(0), 0
	for shift := 0; ; shift += 7 {
		c := text[n]
		n++
		length |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	end := n + int(length)
	return text[n:end], text[end:]
}
