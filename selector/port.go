package selector

import (
	"cmp"
	"slices"
)

// PortRange is the ports First to Last, both included, of one protocol. Every port of a protocol is
// 0 to 65535.
type PortRange struct {
	Protocol uint8 // IP protocol number (IANA): 6 is TCP, 17 UDP, 132 SCTP
	First    uint16
	Last     uint16
}

// MergePorts returns the ranges that cover exactly the ports of in: disjoint, sorted by protocol
// and then by port, with at least one port between any two of the same protocol. A range whose
// First is behind its Last holds no port and is dropped. The argument isn't modified.
func MergePorts(in []PortRange) []PortRange {
	sorted := slices.SortedFunc(slices.Values(in), func(a, b PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	var out []PortRange
	for _, r := range sorted {
		if r.First > r.Last {
			continue
		}
		if n := len(out); n > 0 && out[n-1].reaches(r) {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// reaches reports whether o, which doesn't start before r, overlaps r or follows it without a gap.
func (r PortRange) reaches(o PortRange) bool {
	// In int, as 65535 + 1 isn't a port.
	return r.Protocol == o.Protocol && int(o.First) <= int(r.Last)+1
}
