package attribute_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/attribute"
)

// TestAll: what was appended is read, without its flags; of what is cut somewhere, the whole
// attributes before the cut.
func TestAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		kinds := rapid.SliceOf(rapid.Uint16Range(0, 0x3fff)).Draw(t, "kinds")
		flags := rapid.SampledFrom([]uint16{0, unix.NLA_F_NESTED, unix.NLA_F_NET_BYTEORDER}).
			Draw(t, "flags")
		var data []byte
		var values [][]byte
		var ends []int
		space := 0
		for _, kind := range kinds {
			value := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "value")
			values, ends = append(values, value),
				append(ends, len(data)+unix.SizeofNlAttr+len(value))
			data = attribute.Append(data, kind|flags, value)
			space += attribute.Space(value)
		}
		if space != len(data) {
			t.Errorf("%d bytes take %d", len(data), space)
		}
		cut := rapid.IntRange(0, len(data)).Draw(t, "cut")
		i := 0
		for kind, value := range attribute.All(data[:cut]) {
			if kind != kinds[i] || !bytes.Equal(value, values[i]) {
				t.Errorf("attribute %d is %d %x, want %d %x", i, kind, value, kinds[i], values[i])
			}
			i++
		}
		if i < len(ends) && ends[i] <= cut || i > 0 && ends[i-1] > cut {
			t.Errorf("%d of %d were read, cut after %d bytes", i, len(kinds), cut)
		}
	})
}
