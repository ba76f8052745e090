package selector

import (
	"encoding/binary"
	"iter"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"unique"
)

// LabelSet is the labels of an object. It doesn't change, and equal sets are ==. Objects with the
// same keys, such as the pods of one Helm chart, share them in memory; the values are each set's
// own, until somebody keeps one of several equal sets. The zero value has no labels.
type LabelSet struct {
	keys   unique.Handle[string] // sorted; see words
	values string
}

// LabelSetOf returns the set of these labels.
func LabelSetOf(labels map[string]string) LabelSet {
	if len(labels) == 0 {
		return LabelSet{}
	}
	keys := slices.Sorted(maps.Keys(labels))
	values := make([]string, len(keys))
	for i, key := range keys {
		values[i] = labels[key]
	}
	return LabelSet{unique.Make(encodeWords(keys)), encodeWords(values)}
}

// All yields the labels, by key.
func (s LabelSet) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		keys, values := s.words()
		for i := range keys.count {
			if !yield(keys.at(i), values.at(i)) {
				return
			}
		}
	}
}

// Get returns the value of a key, and whether it is there. An object may have thousands of labels,
// so they aren't walked.
func (s LabelSet) Get(key string) (value string, found bool) {
	keys, values := s.words()
	i, found := sort.Find(keys.count, func(i int) int { return strings.Compare(key, keys.at(i)) })
	if !found {
		return "", false
	}
	return values.at(i), true
}

// String lists the labels for people, by key.
func (s LabelSet) String() string {
	var out []string
	for key, value := range s.All() {
		out = append(out, word(key)+"="+word(value))
	}
	return strings.Join(out, ", ")
}

// words are the keys, and the value of each.
func (s LabelSet) words() (keys, values words) {
	if s == (LabelSet{}) {
		return words{}, words{}
	}
	return decodeWords(s.keys.Value()), decodeWords(s.values)
}

// words is a list of texts in one text: the width of its numbers in bytes, then the numbers, then
// all texts. The numbers are how many texts there are, and where each ends.
type words struct {
	count, width int
	ends, texts  string
}

func encodeWords(list []string) string {
	length := 0
	for _, w := range list {
		length += len(w)
	}
	width := 1
	if largest := max(length, len(list)); largest > math.MaxUint16 {
		width = 4
	} else if largest > math.MaxUint8 {
		width = 2
	}
	out := make([]byte, 0, 1+width*(1+len(list))+length)
	number := func(n int) {
		all := binary.BigEndian.AppendUint32(nil, uint32(n)) // no object has so many bytes
		out = append(out, all[len(all)-width:]...)
	}
	out = append(out, byte(width))
	number(len(list))
	end := 0
	for _, w := range list {
		end += len(w)
		number(end)
	}
	for _, w := range list {
		out = append(out, w...)
	}
	return string(out)
}

func decodeWords(text string) words {
	w := words{width: int(text[0])}
	w.count = w.number(text[1:])
	w.ends = text[1+w.width:]
	w.texts = w.ends[w.count*w.width:]
	return w
}

// at is the text with an index.
func (w words) at(i int) string {
	begin := 0
	if i > 0 {
		begin = w.number(w.ends[(i-1)*w.width:])
	}
	return w.texts[begin:w.number(w.ends[i*w.width:])]
}

// number is the one that a text begins with.
func (w words) number(text string) (n int) {
	for i := range w.width {
		n = n<<8 | int(text[i])
	}
	return n
}
