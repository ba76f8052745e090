package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// String is the ruleset as nft would list it, sorted by name, counters left out.
func (r *Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", TableName)
	for _, name := range slices.Sorted(maps.Keys(r.Sets)) {
		b.WriteString(r.Sets[name].String())
	}
	for _, name := range slices.Sorted(maps.Keys(r.Chains)) {
		b.WriteString(r.Chains[name].text(r.Sets))
	}
	b.WriteString("}\n")
	return b.String()
}

// String is the set as nft lists it, elements sorted.
func (s *Set) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", s.Kind(), s.Name, s.TypeString())
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if s.Comment != "" {
		fmt.Fprintf(&b, "\t\tcomment %q\n", ClampComment(s.Comment))
	}
	if len(s.Elements) > 0 {
		var elements []string
		for _, e := range SortedElements(s.Elements) {
			elements = append(elements, s.ElementString(e, s.Elements[e]))
		}
		fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(elements, ", "))
	}
	b.WriteString("\t}\n")
	return b.String()
}

// Kind is the word for the set in nft: set or map.
func (s *Set) Kind() string {
	if s.IsMap() {
		return "map"
	}
	return "set"
}

// TypeString is the type of the set's elements, as nft writes it.
func (s *Set) TypeString() string {
	var types []string
	for _, f := range s.Key {
		types = append(types, f.Type())
	}
	t := strings.Join(types, " . ")
	if s.Verdicts {
		t += " : verdict"
	}
	if s.Targets != 0 {
		t += " : " + s.Targets.Type() + " . " + DstPort.Type()
	}
	return t
}

// ElementString is an element of the set with its verdict, as nft lists it.
func (s *Set) ElementString(e Element, v Verdict) string {
	text := e.Text(s.Key)
	if v.Kind != NoVerdict {
		text += " : " + v.String()
	}
	return text
}

// SortedElements returns the keys in byte order.
func SortedElements[V any](m map[Element]V) []Element {
	return slices.SortedFunc(maps.Keys(m), compareElements)
}

// compareElements orders elements as numbers, by their first key.
func compareElements(a, b Element) int {
	if c := cmp.Compare(a.First, b.First); c != 0 {
		return c
	}
	return cmp.Compare(a.Last, b.Last)
}

// String is the chain as nft lists it, without counters.
func (c *Chain) String() string { return c.text(nil) }

func (c *Chain) text(sets map[string]*Set) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
	if c.Base != nil {
		fmt.Fprintf(&b, "\t\t%s\n", c.Base)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "\t\t%s\n", r.text(sets))
	}
	b.WriteString("\t}\n")
	return b.String()
}

// String is the base chain's definition as nft lists it.
func (b *Base) String() string {
	s := fmt.Sprintf("type %s hook %s priority %s; policy accept;", b.Type, b.Hook,
		b.priorityString())
	if b.Foreign != "" {
		s += " # but: " + b.Foreign
	}
	return s
}

// String is the type's name.
func (t ChainType) String() string {
	if t == NATChain {
		return "nat"
	}
	return "filter"
}

// priorityString names priorities near a well-known one as nft does. Two of them are known at one
// hook only.
func (b *Base) priorityString() string {
	const near, anyHook = 10, Hook(0xff)
	for _, known := range []struct {
		name string
		at   int
		hook Hook
	}{
		{"raw", -300, anyHook},
		{"mangle", -150, anyHook},
		{"dstnat", -100, HookPrerouting},
		{"filter", 0, anyHook},
		{"security", 50, anyHook},
		{"srcnat", 100, HookPostrouting},
	} {
		if known.hook != anyHook && known.hook != b.Hook {
			continue
		}
		switch d := b.Priority - known.at; {
		case d == 0:
			return known.name
		case d > 0 && d <= near:
			return fmt.Sprintf("%s + %d", known.name, d)
		case d < 0 && d >= -near:
			return fmt.Sprintf("%s - %d", known.name, -d)
		}
	}
	return strconv.Itoa(b.Priority)
}

// String is the hook's name.
func (h Hook) String() string {
	names := [...]string{"prerouting", "input", "forward", "output", "postrouting"}
	if int(h) < len(names) {
		return names[h]
	}
	return "hook" + strconv.Itoa(int(h))
}

// String is the rule as nft lists it, without counters' values.
func (r Rule) String() string { return r.text(nil) }

// text is String, with the details that only the sets of the rule's ruleset have.
func (r Rule) text(sets map[string]*Set) string {
	var parts []string
	tcp := false
	for _, s := range r.Statements {
		text := s.String()
		switch s := s.(type) {
		case MatchPort:
			tcp = tcp || s.Proto == unix.IPPROTO_TCP
		case MatchProto:
			tcp = tcp || s.Proto == unix.IPPROTO_TCP
		case MatchTCPNoSYN:
			tcp = true
		case DNAT:
			if family, err := s.Family(sets); err == nil {
				text = s.text(family)
			}
		case ResetTCP:
			if !tcp {
				text = MatchProto{unix.IPPROTO_TCP}.String() + " " + text
			}
		}
		parts = append(parts, text)
	}
	if r.Comment != "" {
		parts = append(parts, `comment "`+ClampComment(r.Comment)+`"`)
	}
	return strings.Join(parts, " ")
}

// String is the verdict as nft lists it.
func (v Verdict) String() string {
	switch v.Kind {
	case NoVerdict:
		return ""
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Return:
		return "return"
	case Jump:
		return "jump " + v.Chain
	case NATTo:
		return v.Target.Addr().String() + " . " + strconv.Itoa(int(v.Target.Port()))
	default:
		return "foreign " + v.Chain
	}
}

// Text is the element as nft lists it in a set with this key.
func (e Element) Text(key []Field) string {
	var parts []string
	first, last := []byte(e.First), []byte(e.Last)
	for _, f := range key {
		n := f.Words() * 4
		if len(first) < n || f.Size() == 0 {
			return fmt.Sprintf("0x%x-0x%x", e.First, e.Last)
		}
		text := f.format(first[:f.Size()])
		first = first[n:]
		if len(last) >= n {
			if end := f.format(last[:f.Size()]); end != text {
				text += "-" + end
			}
			last = last[n:]
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " . ")
}

// String is the element in hexadecimal: what it means depends on its set; see Text.
func (e Element) String() string {
	if e.Last == "" {
		return fmt.Sprintf("0x%x", e.First)
	}
	return fmt.Sprintf("0x%x-0x%x", e.First, e.Last)
}

func (f Field) format(b []byte) string {
	switch f {
	case SrcAddr4, DstAddr4, SrcAddr6, DstAddr6, OriginalSrc4, OriginalSrc6, ReplySrc4, ReplySrc6:
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	case InIface, OutIface:
		name, _, _ := strings.Cut(string(b), "\x00")
		return strconv.Quote(name)
	case L4Proto:
		return protoName(b[0])
	case DstPort:
		return strconv.Itoa(int(binary.BigEndian.Uint16(b)))
	default:
		return fmt.Sprintf("0x%x", b)
	}
}

func protoName(p uint8) string {
	switch p {
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMPV6:
		return "ipv6-icmp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

func (m MatchIface) String() string {
	operator := " "
	if m.Others {
		operator = " != "
	}
	return m.Field.String() + operator + strconv.Quote(m.Name)
}

func (m MatchAddr) String() string  { return m.Field.String() + " " + m.Addr.Unmap().String() }
func (m MatchProto) String() string { return "meta l4proto " + protoName(m.Proto) }

func (m MatchPort) String() string {
	ports := strconv.Itoa(int(m.First))
	if m.Last != m.First {
		ports += "-" + strconv.Itoa(int(m.Last))
	}
	return protoName(m.Proto) + " dport " + ports
}

func (m MatchCT) String() string {
	var names []string
	for _, s := range []struct {
		bit  CTState
		name string
	}{
		{CTInvalid, "invalid"}, {CTEstablished, "established"}, {CTRelated, "related"},
		{CTNew, "new"}, {CTUntracked, "untracked"},
	} {
		if m.State&s.bit != 0 {
			names = append(names, s.name)
		}
	}
	return "ct state " + strings.Join(names, ",")
}

func (MatchND) String() string          { return "ip6 hoplimit 255 icmpv6 type 133-137" }
func (MatchTCPNoSYN) String() string    { return "tcp flags ! syn" }
func (MatchLocalSrc) String() string    { return "fib saddr type local" }
func (MatchLocalDst) String() string    { return "fib daddr type local" }
func (MatchNoRouteBack) String() string { return "fib saddr . iif oif missing" }
func (MatchRouteBack) String() string   { return "fib saddr . iif oif exists" }
func (m InSet) String() string          { return joinFields(m.Fields) + " @" + m.Set }
func (d Dispatch) String() string       { return joinFields(d.Fields) + " vmap @" + d.Map }
func (Count) String() string            { return "counter" }
func (d Do) String() string             { return d.Verdict.String() }
func (ResetTCP) String() string         { return "reject with tcp reset" }

func (m MatchPrefix) String() string {
	if p := m.Prefix.Masked(); !p.IsSingleIP() {
		return m.Field.String() + " " + p.String()
	}
	return m.Field.String() + " " + m.Prefix.Addr().String()
}

func (s Sample) String() string {
	text := fmt.Sprintf("limit rate %d/second", s.PerSecond)
	if burst := cmp.Or(s.Burst, DefaultBurst); burst != DefaultBurst {
		text += fmt.Sprintf(" burst %d packets", burst)
	}
	if s.Prefix != "" {
		text += fmt.Sprintf(" log prefix %q", s.Prefix)
	} else {
		text += " log"
	}
	return text + fmt.Sprintf(" group %d", s.Group)
}

func joinFields(fields []Field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.String()
	}
	return strings.Join(names, " . ")
}
