package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// State is what connection tracking says of a packet, one of the kernel's bits.
type State uint32

// The states, with the kernel's values.
const (
	Invalid     State = 1
	Established State = 2
	Related     State = 4
	New         State = 8
	Untracked   State = 64
)

func (s State) String() string {
	return map[State]string{Invalid: "invalid", Established: "established", Related: "related",
		New: "new", Untracked: "untracked"}[s]
}

// A Label is the label of a connection, as the kernel has it: numbers of 64 bits, each in the
// machine's byte order.
type Label [labelSize]byte

// LabelWith is the label with one bit, 0 to 127.
func LabelWith(bit uint8) Label {
	const word = 64
	var l Label
	binary.NativeEndian.PutUint64(l[bit/word*8:], 1<<(bit%word))
	return l
}

// A Class is packets that differ in protocol and destination port alone. It is comparable.
type Class struct {
	In, Out  string // interfaces; empty where the hook has none
	Src, Dst netip.Addr
	State    State
	// Label of the connection, all of it.
	Label Label
	// OrigSrc and ReplySrc are who sent the connection's first packet and who sends its answers; of
	// an error those of the connection that it is about. Not valid without a connection.
	OrigSrc, ReplySrc netip.Addr
	// DNATed: the connection's destination was translated.
	DNATed bool
	// RouteBack: the node reaches the source through In.
	RouteBack bool
	// SrcLocal and DstLocal: the address is one of the node's.
	SrcLocal, DstLocal bool
	// NoSYN: TCP segments have no SYN; otherwise they have. Other flags aren't known.
	NoSYN bool
	// Type is the type of ICMPv6 packets, which the class has alone; 0: packets of any protocol.
	Type uint8
	// Hops is the hop limit of IPv6.
	Hops uint8
}

func (c *Class) is4() bool { return c.Src.Is4() }

// Region is the protocols and ports that the class has.
func (c *Class) Region() Region {
	if c.Type != 0 {
		return Protocol(unix.IPPROTO_ICMPV6)
	}
	return Everything()
}

var localType = binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)

const (
	synFlag   = 0x02
	statusDst = 0x20 // IPS_DST_NAT
)

// A value is what a class has in a field, and which bits of that are known.
type value struct {
	bytes, known [64]byte
	length       int
}

func (v *value) set(b ...byte) {
	v.length = copy(v.bytes[:], b)
	for i := range v.length {
		v.known[i] = 0xff
	}
}

// read puts a field of the class into v. within is where evaluation is.
func (v *value) read(c *Class, s source, tracked bool, within Region) error {
	if !tracked && s.reads()&readsConnection != 0 {
		return fmt.Errorf("%s before connection tracking", s)
	}
	switch s.kind {
	case networkHeader:
		return v.readNetwork(c, s)
	case transportHeader:
		return v.readTransport(c, s, within)
	case inName:
		v.setName(c.In)
	case outName:
		v.setName(c.Out)
	case ipVersion:
		v.set(unix.NFPROTO_IPV6)
		if c.is4() {
			v.set(unix.NFPROTO_IPV4)
		}
	case routeBack:
		v.setNumber(boolNumber(c.RouteBack))
	case srcLocal:
		v.setNumber(boolNumber(c.SrcLocal) * unix.RTN_LOCAL)
	case dstLocal:
		v.setNumber(boolNumber(c.DstLocal) * unix.RTN_LOCAL)
	case ctState:
		v.setNumber(uint32(c.State))
	case ctStatus:
		v.setNumber(boolNumber(c.DNATed) * statusDst)
		copy(v.known[:], binary.NativeEndian.AppendUint32(nil, statusDst))
	case ctLabel:
		v.set(c.Label[:]...)
	case origSrc, replySrc:
		return v.readEnd(c, s)
	default:
		return fmt.Errorf("%s can't be read here", s)
	}
	return nil
}

func boolNumber(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func (v *value) setNumber(n uint32) { v.set(binary.NativeEndian.AppendUint32(nil, n)...) }

func (v *value) setName(name string) {
	var b [ifNameSize]byte
	copy(b[:], name)
	v.set(b[:]...)
}

// errNoConnection is why the kernel goes on with the next rule.
var errNoConnection = errors.New("no connection of this IP version")

func (v *value) readEnd(c *Class, s source) error {
	end := c.OrigSrc
	if s.kind == replySrc {
		end = c.ReplySrc
	}
	if !end.IsValid() || end.Is4() != (s.length == 4) {
		return errNoConnection
	}
	v.set(end.AsSlice()...)
	return nil
}

func (v *value) readNetwork(c *Class, s source) error {
	if !c.is4() && s.offset == hopOffset6 && s.length == 1 {
		v.set(c.Hops)
		return nil
	}
	isSource, begin, ok := s.addressPart(c.is4())
	if !ok {
		return fmt.Errorf("bytes %d to %d of the IP header, where no address is", s.offset,
			s.offset+s.length-1)
	}
	a := c.Dst
	if isSource {
		a = c.Src
	}
	b := a.As16() // of an IPv4 address it ends with the four bytes
	v.set(b[len(b)-sizeOf(c.is4())+begin:][:s.length]...)
	return nil
}

func (v *value) readTransport(c *Class, s source, within Region) error {
	switch {
	case s == typeField && c.Type != 0:
		v.set(c.Type)
	case s == flagsField && Protocol(unix.IPPROTO_TCP).Contains(within):
		v.set(synFlag)
		if c.NoSYN {
			v.set(0)
		}
		v.known[0] = synFlag
	default:
		return fmt.Errorf("%s of %s", s, within)
	}
	return nil
}
