package kernel

import "fmt"

// A source is where the bytes in a register come from.
type source struct {
	kind   sourceKind
	offset int // in a header
	length int
}

type sourceKind uint8

const (
	networkHeader sourceKind = iota + 1
	transportHeader
	inName
	outName
	ipVersion // NFPROTO_IPV4 or NFPROTO_IPV6
	protocol
	ctState
	ctStatus
	ctLabel
	origSrc   // the source of a connection's first packet, an address
	replySrc  // that of its answers
	routeBack // 4 bytes: whether the source is reached through where the packet came from
	srcLocal  // 4 bytes: RTN_LOCAL if the source is an address of the node
	dstLocal
	constant // an immediate value, or data of a map: for translations alone
)

func (s source) String() string {
	switch s.kind {
	case networkHeader:
		return fmt.Sprintf("network header %d+%d", s.offset, s.length)
	case transportHeader:
		return fmt.Sprintf("transport header %d+%d", s.offset, s.length)
	default:
	}
	return [...]string{inName: "iifname", outName: "oifname", ipVersion: "nfproto",
		protocol: "l4proto", ctState: "ct state", ctStatus: "ct status", ctLabel: "ct label",
		origSrc: "ct original saddr", replySrc: "ct reply saddr", routeBack: "fib saddr . iif",
		srcLocal: "fib saddr type", dstLocal: "fib daddr type",
		constant: "constant"}[s.kind]
}

// The two sources that a Class leaves open: evaluation splits regions by them.
var (
	protocolField = source{kind: protocol, length: 1}
	portField     = source{kind: transportHeader, offset: 2, length: 2}
)

func (s source) symbolic() bool { return s == protocolField || s == portField }

// isEnd reports whether a source is an end of the packet's connection.
func (s source) isEnd() bool { return s.kind == origSrc || s.kind == replySrc }

// ofAddress reports whether a source may be an address or part of one.
func (s source) ofAddress() bool { return s.kind == networkHeader || s.isEnd() }

// addressPart is which bytes of an address a source is: begin is where. ok is false for what isn't
// within one address. What comes from a packet's header doesn't say the IP version.
func (s source) addressPart(is4 bool) (isSource bool, begin int, ok bool) {
	if s.isEnd() {
		return true, 0, (s.length == 4) == is4
	}
	if s.kind != networkHeader {
		return false, 0, false
	}
	first, size := 8, sizeOf(is4) // where the source's address sits; the other one follows
	if is4 {
		first = 12
	}
	for i, isSource := range []bool{true, false} {
		at := first + i*size
		if s.offset >= at && s.offset+s.length <= at+size {
			return isSource, s.offset - at, true
		}
	}
	return false, 0, false
}

// sizeOf is how many bytes an address has.
func sizeOf(is4 bool) int {
	if is4 {
		return 4
	}
	return 16
}

// reads are the parts of a Class that a chain looks at.
type reads uint32

const (
	readsIn reads = 1 << iota
	readsOut
	readsSrc
	readsDst
	// readsExact: addresses count as such, not just by what they are a member of.
	readsExact
	readsState
	readsStatus
	readsLabel
	readsOrigSrc
	readsReplySrc
	readsBack
	readsSrcLocal
	readsDstLocal
	readsHops
	readsType // of ICMP
	readsFlags

	readsConnection = readsState | readsStatus | readsLabel | readsOrigSrc | readsReplySrc
)

// reads are none for what a Class leaves open.
func (s source) reads() reads {
	if s.symbolic() {
		return 0
	}
	switch s.kind {
	case networkHeader:
		out := readsSrc | readsDst
		src, _, ok4 := s.addressPart(true)
		src6, _, ok6 := s.addressPart(false)
		switch {
		case s.offset == hopOffset6 && s.length == 1:
			return readsHops
		case ok4 && ok6 && src == src6 || ok4 != ok6:
			if ok4 && src || ok6 && src6 {
				return readsSrc
			}
			return readsDst
		case !ok4 && !ok6:
			return out | readsExact
		}
		return out
	case transportHeader:
		if s.offset == 0 {
			return readsType
		}
		return readsFlags
	default:
	}
	return [...]reads{inName: readsIn, outName: readsOut, ctState: readsState,
		ctStatus: readsStatus, ctLabel: readsLabel, origSrc: readsOrigSrc,
		replySrc: readsReplySrc, routeBack: readsBack, srcLocal: readsSrcLocal,
		dstLocal: readsDstLocal, constant: 0}[s.kind]
}

func readsOf(s step) reads {
	var out reads
	switch s := s.(type) {
	case *match:
		out = s.from.reads()
	case *lookup:
		for _, part := range s.parts {
			out |= part.reads()
		}
		if s.verdicts {
			out |= readsExact
		}
	}
	return out
}

// hopOffset6 is where IPv6 has its hop limit.
const hopOffset6 = 7
