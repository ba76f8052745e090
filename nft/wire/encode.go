package wire

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// register1 is the first 16-byte register; register0 the verdict's.
const (
	register0 = unix.NFT_REG_VERDICT
	register1 = unix.NFT_REG_1
)

// An encoder turns the statements of one rule into expressions. It remembers what earlier
// statements have established, so that a dependency (the IP version, the transport protocol) is
// matched once a rule, as nft does: nft lists `tcp dport 80` only if exactly that match of the
// protocol precedes.
type encoder struct {
	sets   map[string]*nft.Set // those of the rule's ruleset
	exprs  [][]byte            // attributes: name and data
	family int                 // IP version that is matched already, 0 for none
	proto  int                 // transport protocol that is matched already, -1 for none
	err    error
}

func (e *encoder) add(list ...expr.Any) {
	for _, x := range list {
		body, err := expr.Marshal(familyINet, x)
		if err != nil && e.err == nil {
			e.err = err
		}
		e.exprs = append(e.exprs, body)
	}
}

// addRaw adds an expression that the library can't make.
func (e *encoder) addRaw(name string, data []byte) error {
	body, err := netlink.MarshalAttributes([]netlink.Attribute{
		nameAttr(unix.NFTA_EXPR_NAME, name),
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: data},
	})
	e.exprs = append(e.exprs, body)
	return err
}

func (e *encoder) needFamily(version int) {
	if version == 0 || e.family == version {
		return
	}
	e.family = version
	nfproto := byte(unix.NFPROTO_IPV4)
	if version == 6 {
		nfproto = unix.NFPROTO_IPV6
	}
	e.add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register1}, equals(nfproto))
}

func (e *encoder) needProto(proto uint8) {
	if e.proto == int(proto) {
		return
	}
	e.proto = int(proto)
	e.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register1}, equals(proto))
}

func equals(data ...byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register1, Data: data}
}

// load puts a field into the register.
func (e *encoder) load(f nft.Field, register uint32) {
	switch f {
	case nft.SrcAddr4, nft.DstAddr4, nft.SrcAddr6, nft.DstAddr6:
		e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader,
			Offset: offset(f), Len: uint32(f.Size())})
	case nft.OriginalSrc4, nft.OriginalSrc6:
		e.loadEnd(f, register, originalDirection)
	case nft.ReplySrc4, nft.ReplySrc6:
		e.loadEnd(f, register, replyDirection)
	case nft.InIface:
		e.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register})
	case nft.OutIface:
		e.add(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register})
	case nft.L4Proto:
		e.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
	default: // DstPort: checkKey lets no other by
		e.add(transport(2, 2, register))
	}
}

// The directions of a connection (IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY).
const (
	originalDirection byte = iota
	replyDirection
)

// loadEnd puts the source that a connection has in one direction into the register. The library
// neither writes nor reads the direction, so attributes are in the kernel's order: what is read
// back is compared as bytes.
func (e *encoder) loadEnd(f nft.Field, register uint32, direction byte) {
	key := uint32(unix.NFT_CT_SRC_IP)
	if f.Family() == 6 {
		key = unix.NFT_CT_SRC_IP6
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CT_DREG, Data: binary.BigEndian.AppendUint32(nil, register)},
		{Type: unix.NFTA_CT_KEY, Data: binary.BigEndian.AppendUint32(nil, key)},
		{Type: unix.NFTA_CT_DIRECTION, Data: []byte{direction}},
	})
	if err == nil {
		err = e.addRaw("ct", data)
	}
	e.err = cmp.Or(e.err, err)
}

// offset is where an address field sits in the network header; 0 for others.
func offset(f nft.Field) uint32 {
	return map[nft.Field]uint32{nft.SrcAddr4: 12, nft.DstAddr4: 16, nft.SrcAddr6: 8,
		nft.DstAddr6: 24}[f]
}

func transport(offset, length, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader,
		Offset: offset, Len: length}
}

// loadFields puts fields one after the other into registers, each at the next 32-bit boundary. The
// kernel reads registers at a 16-byte boundary back by their old numbers (1 to 4), so those are
// written, too.
func (e *encoder) loadFields(fields []nft.Field) error {
	if err := checkKey(fields); err != nil {
		return err
	}
	word := 0
	for _, f := range fields {
		e.needFamily(f.Family())
	}
	for _, f := range fields {
		register := uint32(unix.NFT_REG32_00 + word)
		if word%4 == 0 {
			register = uint32(register1 + word/4)
		}
		e.load(f, register)
		word += f.Words()
	}
	return nil
}

// maxKeyFields and maxKeyBytes are the kernel's limits of a concatenation.
const (
	maxKeyFields = 5
	maxKeyBytes  = 64
)

func checkKey(fields []nft.Field) error {
	words := 0
	for _, f := range fields {
		if f < nft.SrcAddr4 || f >= nft.ForeignField {
			return fmt.Errorf("field number %d is none of this package", f)
		}
		words += f.Words()
	}
	if len(fields) == 0 || len(fields) > maxKeyFields || words*4 > maxKeyBytes {
		return fmt.Errorf("a key of %d fields and %d bytes is none", len(fields), words*4)
	}
	return nil
}

func (e *encoder) matchIface(m nft.MatchIface) error {
	if m.Field != nft.InIface && m.Field != nft.OutIface {
		return fmt.Errorf("%s isn't an interface", m.Field)
	}
	prefix, wildcard := strings.CutSuffix(m.Name, "*")
	if prefix == "" || len(prefix) >= unix.IFNAMSIZ {
		return fmt.Errorf("interface name %q is empty or longer than %d", m.Name, unix.IFNAMSIZ-1)
	}
	data := []byte(prefix)
	if !wildcard {
		data = append(data, make([]byte, unix.IFNAMSIZ-len(prefix))...)
	}
	e.load(m.Field, register1)
	match := equals(data...)
	if m.Others {
		match.Op = expr.CmpOpNeq
	}
	e.add(match)
	return nil
}

func (e *encoder) matchAddr(m nft.MatchAddr) error {
	addr := m.Addr.Unmap()
	if !addr.IsValid() || offset(m.Field) == 0 || (m.Field.Family() == 4) != addr.Is4() {
		return fmt.Errorf("%s can't be compared with address %s", m.Field, m.Addr)
	}
	e.needFamily(m.Field.Family())
	e.load(m.Field, register1)
	e.add(equals(addr.AsSlice()...))
	return nil
}

// matchPrefix compares no more bytes than the prefix has, if it has whole ones, as nft does.
func (e *encoder) matchPrefix(m nft.MatchPrefix) error {
	p := m.Prefix.Masked()
	family := m.Field.Family()
	if !p.IsValid() || offset(m.Field) == 0 || p.Addr().Is4In6() ||
		(family == 4) != p.Addr().Is4() {
		return fmt.Errorf("%s can't be compared with prefix %s", m.Field, m.Prefix)
	}
	e.needFamily(family)
	addr, bits := p.Addr().AsSlice(), p.Bits()
	if bits%8 == 0 && bits > 0 {
		field := &expr.Payload{DestRegister: register1, Base: expr.PayloadBaseNetworkHeader,
			Offset: offset(m.Field), Len: uint32(bits / 8)}
		e.add(field, equals(addr[:bits/8]...))
		return nil
	}
	mask := make([]byte, len(addr))
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	e.load(m.Field, register1)
	e.add(
		&expr.Bitwise{SourceRegister: register1, DestRegister: register1, Len: uint32(len(addr)),
			Mask: mask, Xor: make([]byte, len(addr))},
		equals(addr...),
	)
	return nil
}

func (e *encoder) matchProto(m nft.MatchProto) error {
	e.needProto(m.Proto)
	return nil
}

func (e *encoder) matchPort(m nft.MatchPort) error {
	if m.First > m.Last {
		return fmt.Errorf("port range %d-%d is empty", m.First, m.Last)
	}
	e.needProto(m.Proto)
	e.load(nft.DstPort, register1)
	first, last := binary.BigEndian.AppendUint16(nil, m.First),
		binary.BigEndian.AppendUint16(nil, m.Last)
	e.addRange(first, last)
	return nil
}

// addRange compares register 1 with a range, both ends included.
func (e *encoder) addRange(first, last []byte) {
	if string(first) == string(last) {
		e.add(equals(first...))
		return
	}
	e.add(
		&expr.Cmp{Op: expr.CmpOpGte, Register: register1, Data: first},
		&expr.Cmp{Op: expr.CmpOpLte, Register: register1, Data: last},
	)
}

func (e *encoder) matchCT(m nft.MatchCT) error {
	if m.State == 0 {
		return fmt.Errorf("no state to match")
	}
	e.add(&expr.Ct{Key: expr.CtKeySTATE, Register: register1})
	e.addAnyBit(uint32(m.State))
	return nil
}

// addAnyBit matches if register 1, a number of the machine, has any of the bits.
func (e *encoder) addAnyBit(bits uint32) {
	e.add(
		&expr.Bitwise{
			SourceRegister: register1, DestRegister: register1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register1, Data: make([]byte, 4)},
	)
}

// Neighbour discovery's ICMPv6 types and hop limit (RFC 4861).
const (
	ndFirstType = 133
	ndLastType  = 137
	ndHopLimit  = 255
)

func (e *encoder) matchND() error {
	e.needFamily(6)
	e.add(
		&expr.Payload{DestRegister: register1, Base: expr.PayloadBaseNetworkHeader, Offset: 7,
			Len: 1},
		equals(ndHopLimit),
	)
	e.needProto(unix.IPPROTO_ICMPV6)
	e.add(transport(0, 1, register1))
	e.addRange([]byte{ndFirstType}, []byte{ndLastType})
	return nil
}

func (e *encoder) matchTCPNoSYN() error {
	const flagsOffset, syn = 13, 0x02
	e.needProto(unix.IPPROTO_TCP)
	e.add(
		transport(flagsOffset, 1, register1),
		&expr.Bitwise{SourceRegister: register1, DestRegister: register1, Len: 1, Mask: []byte{syn},
			Xor: []byte{0}},
		equals(0),
	)
	return nil
}

func (e *encoder) matchLocalSrc() error {
	e.addLocal(&expr.Fib{Register: register1, FlagSADDR: true, ResultADDRTYPE: true})
	return nil
}

// matchRouteBack matches where there is a way back (1), or where there is none (0).
func (e *encoder) matchRouteBack(present uint32) error {
	e.add(&expr.Fib{Register: register1, FlagSADDR: true, FlagIIF: true, ResultOIF: true,
		FlagPRESENT: true}, equals(binary.NativeEndian.AppendUint32(nil, present)...))
	return nil
}

func (e *encoder) inSet(m nft.InSet) error {
	if err := e.loadFields(m.Fields); err != nil {
		return err
	}
	e.add(&expr.Lookup{SourceRegister: register1, SetName: m.Set})
	return nil
}

func (e *encoder) dispatch(d nft.Dispatch) error {
	if err := e.loadFields(d.Fields); err != nil {
		return err
	}
	e.add(&expr.Lookup{SourceRegister: register1, SetName: d.Map, DestRegister: register0,
		IsDestRegSet: true})
	return nil
}

func (e *encoder) matchLocalDst() error {
	e.addLocal(&expr.Fib{Register: register1, FlagDADDR: true, ResultADDRTYPE: true})
	return nil
}

// addLocal compares the type of an address with "local".
func (e *encoder) addLocal(kind *expr.Fib) {
	e.add(kind, equals(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)...))
}

func (e *encoder) count() error {
	e.add(&expr.Counter{})
	return nil
}

// maxLogPrefix is the longest prefix of a log message, without its NUL (NF_LOG_PREFIXLEN).
const maxLogPrefix = 127

func (e *encoder) sample(s nft.Sample) error {
	if len(s.Prefix) > maxLogPrefix || s.PerSecond == 0 {
		return fmt.Errorf("a log prefix of %d bytes at %d a second can't be", len(s.Prefix),
			s.PerSecond)
	}
	log := &expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: s.Group}
	if s.Prefix != "" {
		log.Key |= 1 << unix.NFTA_LOG_PREFIX
		log.Data = []byte(s.Prefix)
	}
	e.add(&expr.Limit{Type: expr.LimitTypePkts, Rate: s.PerSecond, Unit: expr.LimitTimeSecond,
		Burst: cmp.Or(s.Burst, nft.DefaultBurst)}, log)
	return nil
}

func (e *encoder) do(d nft.Do) error {
	v, err := verdict(d.Verdict)
	if err != nil {
		return err
	}
	e.add(v)
	return nil
}

func verdict(v nft.Verdict) (*expr.Verdict, error) {
	if (v.Kind == nft.Jump) != (v.Chain != "") {
		return nil, fmt.Errorf("a verdict has a chain if and only if it is a jump: %+v", v)
	}
	switch v.Kind {
	case nft.Accept:
		return &expr.Verdict{Kind: expr.VerdictAccept}, nil
	case nft.Drop:
		return &expr.Verdict{Kind: expr.VerdictDrop}, nil
	case nft.Return:
		return &expr.Verdict{Kind: expr.VerdictReturn}, nil
	case nft.Jump:
		return &expr.Verdict{Kind: expr.VerdictJump, Chain: v.Chain}, nil
	default:
		return nil, fmt.Errorf("verdict kind %d can't be written", v.Kind)
	}
}

func (e *encoder) resetTCP() error {
	e.needProto(unix.IPPROTO_TCP)
	e.add(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	return nil
}
