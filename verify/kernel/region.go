package kernel

import (
	"fmt"
	"slices"
	"strings"
)

// A Region is a set of pairs of transport protocol and destination port: disjoint spans in order,
// none of which follows another without a gap. It is a value: nothing here changes one. What has no
// ports (ICMP) has all of them or none.
type Region []Span

// A Span is a range of a Region: protocol<<16 | port, both ends included.
type Span struct{ First, Last uint32 }

// lastPoint is the last port of the last protocol.
const lastPoint = 1<<24 - 1

// Everything is every port of every protocol.
func Everything() Region { return Region{{0, lastPoint}} }

// Protocol is every port of one protocol (an IANA number).
func Protocol(proto uint8) Region { return Ports(proto, 0, 65535) }

// Ports is the ports first to last of one protocol.
func Ports(proto uint8, first, last uint16) Region {
	at := uint32(proto) << 16
	return Region{{at | uint32(first), at | uint32(last)}}
}

// Union is the region that holds exactly what the spans do. The argument is sorted in place.
func Union(spans []Span) Region {
	slices.SortFunc(spans, func(a, b Span) int { return int(a.First) - int(b.First) })
	var out Region
	for _, s := range spans {
		if n := len(out); n > 0 && s.First <= out[n-1].Last+1 {
			out[n-1].Last = max(out[n-1].Last, s.Last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// Empty reports whether nothing is in r.
func (r Region) Empty() bool { return len(r) == 0 }

func (r Region) whole() bool { return len(r) == 1 && r[0] == Span{0, lastPoint} }

// And is what is in both.
func (r Region) And(o Region) Region {
	switch {
	case r.whole():
		return o
	case o.whole():
		return r
	}
	var out Region
	for i, j := 0, 0; i < len(r) && j < len(o); {
		first, last := max(r[i].First, o[j].First), min(r[i].Last, o[j].Last)
		if first <= last {
			out = append(out, Span{first, last})
		}
		if r[i].Last < o[j].Last {
			i++
		} else {
			j++
		}
	}
	return out
}

// Or is what is in one of them.
func (r Region) Or(o Region) Region {
	switch {
	case r.Empty() || o.whole():
		return o
	case o.Empty() || r.whole():
		return r
	}
	return Union(slices.Concat(r, o))
}

// Minus is what is in r and not in o.
func (r Region) Minus(o Region) Region {
	switch {
	case r.Empty() || o.Empty():
		return r
	case o.whole():
		return nil
	}
	var out Region
	j := 0
	for _, s := range r {
		for ; j < len(o) && o[j].Last < s.First; j++ {
			continue
		}
		first := s.First
		for k := j; k < len(o) && o[k].First <= s.Last; k++ {
			if o[k].First > first {
				out = append(out, Span{first, o[k].First - 1})
			}
			first = o[k].Last + 1
		}
		if first <= s.Last {
			out = append(out, Span{first, s.Last})
		}
	}
	return out
}

// Contains reports whether every pair of o is in r.
func (r Region) Contains(o Region) bool { return o.Minus(r).Empty() }

// protocolNames are those that policies name, and ICMP.
var protocolNames = map[uint32]string{1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}

func protocolName(proto uint32) string {
	if name := protocolNames[proto]; name != "" {
		return name
	}
	return fmt.Sprintf("protocol %d", proto)
}

// String is the region for people: "TCP 80-90, UDP, protocols 59-255".
func (r Region) String() string {
	if r.whole() {
		return "everything"
	}
	var parts []string
	for _, s := range r {
		parts = append(parts, s.parts()...)
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func (s Span) parts() []string {
	first, last := s.First>>16, s.Last>>16
	if first == last {
		return []string{portsText(first, s.First&0xffff, s.Last&0xffff)}
	}
	var parts []string
	if s.First&0xffff != 0 {
		parts = append(parts, portsText(first, s.First&0xffff, 0xffff))
		first++
	}
	whole := last
	if s.Last&0xffff != 0xffff {
		whole--
	}
	switch {
	case first == whole:
		parts = append(parts, protocolName(first))
	case first < whole:
		parts = append(parts, fmt.Sprintf("protocols %d-%d", first, whole))
	}
	if whole != last {
		parts = append(parts, portsText(last, 0, s.Last&0xffff))
	}
	return parts
}

func portsText(proto, first, last uint32) string {
	switch {
	case first == 0 && last == 0xffff:
		return protocolName(proto)
	case first == last:
		return fmt.Sprintf("%s %d", protocolName(proto), first)
	}
	return fmt.Sprintf("%s %d-%d", protocolName(proto), first, last)
}
