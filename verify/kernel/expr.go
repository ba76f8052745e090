package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The attributes of an expression in a list.
const (
	exprName = unix.NFTA_EXPR_NAME
	exprData = unix.NFTA_EXPR_DATA
)

// expression takes in one expression.
func (m *machine) expression(body []byte) error {
	f, err := fields(body, exprName, exprData)
	if err != nil {
		return err
	}
	name := text(f[exprName])
	decode := map[string]func([]byte) error{
		"payload": m.payload, "meta": m.meta, "cmp": m.cmp, "range": m.between,
		"bitwise": m.bitwise, "lookup": m.lookup, "immediate": m.immediate,
		"counter": m.counter, "limit": m.limit, "log": m.log, "reject": m.reject, "ct": m.ct,
		"fib": m.fib, "nat": m.nat, "masq": m.masquerade, "notrack": m.notrack,
	}[name]
	if decode == nil {
		return fmt.Errorf("expression %q isn't known", name)
	}
	if err := decode(f[exprData]); err != nil {
		return fmt.Errorf("expression %s: %w", name, err)
	}
	return nil
}

// add appends a step. Behind a limit none may come: it would count for some packets and not for
// others.
func (m *machine) add(s step) error {
	if m.quiet {
		return errors.New("a decision behind a limit")
	}
	m.rule.steps = append(m.rule.steps, s)
	return nil
}

func (m *machine) payload(data []byte) error {
	_, n, err := parse(data, kinds{unix.NFTA_PAYLOAD_DREG, unix.NFTA_PAYLOAD_BASE,
		unix.NFTA_PAYLOAD_OFFSET, unix.NFTA_PAYLOAD_LEN})
	if err != nil {
		return err
	}
	if n[2] > 255 || n[3] > 64 {
		return fmt.Errorf("%d bytes at %d", n[3], n[2])
	}
	from := source{offset: int(n[2]), length: int(n[3])}
	switch n[1] {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		from.kind = networkHeader
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		from.kind = transportHeader
		if from != portField && from != typeField && from != flagsField {
			return fmt.Errorf("%s", from)
		}
	default:
		return fmt.Errorf("header %d", n[1])
	}
	return m.load(n[0], &loaded{from: from})
}

// The bytes of transport headers besides ports that can be read.
var (
	typeField  = source{transportHeader, 0, 1}  // of ICMP
	flagsField = source{transportHeader, 13, 1} // of TCP
)

const ifNameSize = 16

func (m *machine) meta(data []byte) error {
	_, n, err := parse(data, kinds{unix.NFTA_META_DREG, unix.NFTA_META_KEY})
	if err != nil {
		return err
	}
	from, ok := map[uint32]source{
		unix.NFT_META_IIFNAME: {kind: inName, length: ifNameSize},
		unix.NFT_META_OIFNAME: {kind: outName, length: ifNameSize},
		unix.NFT_META_NFPROTO: {kind: ipVersion, length: 1},
		unix.NFT_META_L4PROTO: protocolField,
	}[n[1]]
	if !ok {
		return fmt.Errorf("key %d", n[1])
	}
	return m.load(n[0], &loaded{from: from})
}

const labelSize = 16

func (m *machine) ct(data []byte) error {
	f, n, err := parse(data, kinds{unix.NFTA_CT_DREG, unix.NFTA_CT_KEY},
		unix.NFTA_CT_SREG, unix.NFTA_CT_DIRECTION)
	if err != nil {
		return err
	}
	if _, writes := f[unix.NFTA_CT_SREG]; writes {
		if n[1] != unix.NFT_CT_LABELS {
			return fmt.Errorf("setting key %d", n[1])
		}
		return m.add(mark)
	}
	from, ok := map[uint32]source{
		unix.NFT_CT_STATE:   {kind: ctState, length: 4},
		unix.NFT_CT_STATUS:  {kind: ctStatus, length: 4},
		unix.NFT_CT_LABELS:  {kind: ctLabel, length: labelSize},
		unix.NFT_CT_SRC_IP:  {kind: origSrc, length: 4},
		unix.NFT_CT_SRC_IP6: {kind: origSrc, length: 16},
	}[n[1]]
	if !ok {
		return fmt.Errorf("key %d", n[1])
	}
	direction, directed := f[unix.NFTA_CT_DIRECTION]
	if directed != (from.kind == origSrc) || directed && (len(direction) != 1 || direction[0] > 1) {
		return fmt.Errorf("key %d of direction %v", n[1], direction)
	}
	if directed && direction[0] == 1 {
		from.kind = replySrc
	}
	return m.load(n[0], &loaded{from: from})
}

func (m *machine) fib(data []byte) error {
	_, n, err := parse(data, kinds{unix.NFTA_FIB_DREG, unix.NFTA_FIB_RESULT, unix.NFTA_FIB_FLAGS})
	if err != nil {
		return err
	}
	const back = unix.NFTA_FIB_F_SADDR | unix.NFTA_FIB_F_IIF | unix.NFTA_FIB_F_PRESENT
	kind, ok := map[[2]uint32]sourceKind{
		{unix.NFT_FIB_RESULT_OIF, back}:                       routeBack,
		{unix.NFT_FIB_RESULT_ADDRTYPE, unix.NFTA_FIB_F_SADDR}: srcLocal,
		{unix.NFT_FIB_RESULT_ADDRTYPE, unix.NFTA_FIB_F_DADDR}: dstLocal,
	}[[2]uint32{n[1], n[2]}]
	if !ok {
		return fmt.Errorf("result %d with flags %#x", n[1], n[2])
	}
	return m.load(n[0], &loaded{from: source{kind: kind, length: 4}})
}

func (m *machine) cmp(data []byte) error {
	f, n, err := parse(data, kinds{unix.NFTA_CMP_SREG, unix.NFTA_CMP_OP}, unix.NFTA_CMP_DATA)
	if err != nil {
		return err
	}
	with, err := dataValue(f[unix.NFTA_CMP_DATA])
	if err != nil {
		return err
	}
	return m.compare(n[0], with, func(t *match) error {
		switch n[1] {
		case unix.NFT_CMP_EQ, unix.NFT_CMP_NEQ:
			t.first, t.last, t.invert = with, with, n[1] == unix.NFT_CMP_NEQ
		case unix.NFT_CMP_LTE, unix.NFT_CMP_GT:
			t.first, t.last, t.invert = make([]byte, len(with)), with, n[1] == unix.NFT_CMP_GT
		case unix.NFT_CMP_GTE, unix.NFT_CMP_LT:
			t.first, t.last, t.invert = with, ones(len(with)), n[1] == unix.NFT_CMP_LT
		default:
			return fmt.Errorf("operator %d", n[1])
		}
		return nil
	})
}

func ones(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }

func (m *machine) between(data []byte) error {
	f, n, err := parse(data, kinds{unix.NFTA_RANGE_SREG, unix.NFTA_RANGE_OP},
		unix.NFTA_RANGE_FROM_DATA, unix.NFTA_RANGE_TO_DATA)
	if err != nil {
		return err
	}
	from, err := dataValue(f[unix.NFTA_RANGE_FROM_DATA])
	if err != nil {
		return err
	}
	to, err := dataValue(f[unix.NFTA_RANGE_TO_DATA])
	if err != nil {
		return err
	}
	if len(from) != len(to) || n[1] > unix.NFT_RANGE_NEQ {
		return fmt.Errorf("operator %d from %d to %d bytes", n[1], len(from), len(to))
	}
	return m.compare(n[0], from, func(t *match) error {
		t.first, t.last, t.invert = from, to, n[1] == unix.NFT_RANGE_NEQ
		return nil
	})
}

// compare adds a match of what is in a register.
func (m *machine) compare(register uint32, with []byte, fill func(*match) error) error {
	v, err := m.read(register, len(with))
	if err != nil {
		return err
	}
	t := &match{from: v.from, mask: v.mask, version: m.version}
	if err := fill(t); err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return err
	}
	if v.from.kind == ipVersion && !t.invert && len(with) == 1 &&
		string(t.first) == string(t.last) {
		m.version = map[byte]int{unix.NFPROTO_IPV4: 4, unix.NFPROTO_IPV6: 6}[with[0]]
	}
	return m.add(t)
}

func (m *machine) bitwise(data []byte) error {
	f, n, err := parse(data, kinds{unix.NFTA_BITWISE_SREG, unix.NFTA_BITWISE_DREG,
		unix.NFTA_BITWISE_LEN, bitwiseOp}, unix.NFTA_BITWISE_MASK, unix.NFTA_BITWISE_XOR)
	if err != nil {
		return err
	}
	mask, err := dataValue(f[unix.NFTA_BITWISE_MASK])
	if err != nil {
		return err
	}
	xor, err := dataValue(f[unix.NFTA_BITWISE_XOR])
	if err != nil {
		return err
	}
	v, err := m.read(n[0], int(min(n[2], 64)))
	if err != nil {
		return err
	}
	if n[3] != 0 || len(mask) != v.from.length || len(xor) != len(mask) || int(n[2]) != len(mask) ||
		v.mask != nil {
		return fmt.Errorf("operation %d on %d bytes of %s", n[3], n[2], v.from)
	}
	if !bytes.Equal(xor, make([]byte, len(xor))) {
		return errors.New("exclusive or")
	}
	return m.load(n[1], &loaded{from: v.from, mask: mask})
}

// bitwiseOp is NFTA_BITWISE_OP.
const bitwiseOp = 6

func (m *machine) lookup(data []byte) error {
	f, n, err := parse(data, kinds{unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_FLAGS,
		unix.NFTA_LOOKUP_DREG}, unix.NFTA_LOOKUP_SET, unix.NFTA_LOOKUP_SET_ID)
	if err != nil {
		return err
	}
	if n[1]&^unix.NFT_LOOKUP_F_INV != 0 {
		return fmt.Errorf("flags %#x", n[1])
	}
	out := &lookup{name: text(f[unix.NFTA_LOOKUP_SET]), invert: n[1]&unix.NFT_LOOKUP_F_INV != 0,
		version: m.version}
	set := m.sets[out.name]
	if set == nil {
		return fmt.Errorf("set %q isn't there", out.name)
	}
	if out.parts, err = m.parts(n[0], set.keyLen); err != nil {
		return err
	}
	_, into := f[unix.NFTA_LOOKUP_DREG]
	switch {
	case into && out.invert:
		return errors.New("what isn't in a map, of a map")
	case into && n[2] == unix.NFT_REG_VERDICT:
		out.verdicts = true
	case into:
		const addressAndPort = 20
		size := 8
		if m.version == 6 {
			size = addressAndPort
		}
		if err := m.load(n[2], &loaded{from: source{kind: constant, length: size}}); err != nil {
			return err
		}
	}
	return m.add(out)
}

func (m *machine) immediate(data []byte) error {
	f, n, err := parse(data, kinds{unix.NFTA_IMMEDIATE_DREG}, unix.NFTA_IMMEDIATE_DATA)
	if err != nil {
		return err
	}
	if n[0] != unix.NFT_REG_VERDICT {
		value, err := dataValue(f[unix.NFTA_IMMEDIATE_DATA])
		if err != nil {
			return err
		}
		return m.load(n[0], &loaded{from: source{kind: constant, length: len(value)}})
	}
	v, err := dataVerdict(f[unix.NFTA_IMMEDIATE_DATA])
	if err != nil {
		return err
	}
	return m.add(v)
}

func dataValue(data []byte) ([]byte, error) {
	f, err := fields(data, unix.NFTA_DATA_VALUE)
	if err != nil {
		return nil, err
	}
	value := f[unix.NFTA_DATA_VALUE]
	if len(value) == 0 || len(value) > 64 {
		return nil, fmt.Errorf("a value of %d bytes", len(value))
	}
	return value, nil
}

// The verdicts of netfilter itself (linux/netfilter.h).
const nfDrop, nfAccept = 0, 1

// dataVerdict reads a verdict. There is no goto in our table, and no queue.
func dataVerdict(data []byte) (verdict, error) {
	f, err := fields(data, unix.NFTA_DATA_VERDICT)
	if err != nil {
		return verdict{}, err
	}
	f, err = fields(f[unix.NFTA_DATA_VERDICT], unix.NFTA_VERDICT_CODE, unix.NFTA_VERDICT_CHAIN)
	if err != nil {
		return verdict{}, err
	}
	code := f[unix.NFTA_VERDICT_CODE]
	if len(code) != 4 {
		return verdict{}, errors.New("no verdict")
	}
	n := int32(binary.BigEndian.Uint32(code))
	kind, known := map[int32]verdictKind{
		nfAccept: accept, nfDrop: drop, unix.NFT_JUMP: jump, unix.NFT_RETURN: back,
	}[n]
	if !known {
		return verdict{}, fmt.Errorf("verdict %d", n)
	}
	v := verdict{kind: kind, name: text(f[unix.NFTA_VERDICT_CHAIN])}
	if (v.kind == jump) != (v.name != "") {
		return verdict{}, fmt.Errorf("verdict %d with chain %q", v.kind, v.name)
	}
	return v, nil
}
