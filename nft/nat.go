package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file has what translates addresses and ports, and what leaves packets
// out of that: the statements, and the data of NAT maps.

// protoRegister is the register of the port in a NAT map's data, which begins
// in register 1 with an address of that family.
func protoRegister(targets Field) uint32 {
	if targets.family() == 6 {
		return register1 + 1
	}
	return unix.NFT_REG32_00 + 1
}

func (d DNAT) encode(e *encoder) error {
	family, err := d.family(e.sets)
	if err != nil {
		return err
	}
	if !slices.Contains(d.Fields, L4Proto) {
		return errors.New("ports can only be translated by a key that has the protocol")
	}
	if err := e.loadFields(d.Fields); err != nil {
		return err
	}
	targets, nfproto := DstAddr4, uint32(unix.NFPROTO_IPV4)
	if family == 6 {
		targets, nfproto = DstAddr6, unix.NFPROTO_IPV6
	}
	port := protoRegister(targets)
	e.add(
		&expr.Lookup{SourceRegister: register1, SetName: d.Map, DestRegister: register1, IsDestRegSet: true},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: nfproto,
			RegAddrMin: register1, RegAddrMax: register1, RegProtoMin: port, RegProtoMax: port, Specified: true,
		},
	)
	return nil
}

// family is the IP version of the map's targets.
func (d DNAT) family(sets map[string]*Set) (int, error) {
	s := sets[d.Map]
	if s == nil || s.Targets.family() == 0 {
		return 0, fmt.Errorf("%s is no NAT map", d.Map)
	}
	for _, f := range d.Fields {
		if f.family() != 0 && f.family() != s.Targets.family() {
			return 0, fmt.Errorf("%s can't be translated to %s", f, s.Targets)
		}
	}
	return s.Targets.family(), nil
}

func (s SNAT) encode(e *encoder) error {
	addr := s.Addr.Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return fmt.Errorf("%s is no source for packets", s.Addr)
	}
	nfproto := uint32(unix.NFPROTO_IPV4)
	if addr.Is6() {
		nfproto = unix.NFPROTO_IPV6
	}
	e.add(
		&expr.Immediate{Register: register1, Data: addr.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: nfproto, RegAddrMin: register1, RegAddrMax: register1},
	)
	return nil
}

// Flags of a translation (linux/netfilter/nf_nat.h).
const (
	natProtoSpecified   = 1 << 1
	natProtoRandomFully = 1 << 4
)

// encode makes the expression by hand: the library's sends either the ports or
// the flags, and without a flag that says so the kernel doesn't look at the
// ports.
func (m Masquerade) encode(e *encoder) error {
	var flags uint32
	var attrs []netlink.Attribute
	if m.First != 0 || m.Last != 0 {
		if m.First == 0 || m.First > m.Last {
			return fmt.Errorf("port range %d-%d is none to masquerade to", m.First, m.Last)
		}
		if !hasPorts(e.proto) {
			return errors.New("masquerading to ports needs the match of a protocol that has some")
		}
		first, last := uint32(register1), uint32(register1)
		e.add(&expr.Immediate{Register: first, Data: binary.BigEndian.AppendUint16(nil, m.First)})
		if m.First != m.Last {
			last++
			e.add(&expr.Immediate{Register: last, Data: binary.BigEndian.AppendUint16(nil, m.Last)})
		}
		flags = natProtoSpecified
		attrs = []netlink.Attribute{
			{Type: unix.NFTA_MASQ_REG_PROTO_MIN, Data: binary.BigEndian.AppendUint32(nil, first)},
			{Type: unix.NFTA_MASQ_REG_PROTO_MAX, Data: binary.BigEndian.AppendUint32(nil, last)},
		}
	}
	if m.FullyRandom {
		flags |= natProtoRandomFully
	}
	if flags != 0 {
		// In the kernel's order: an expression that is read back is compared as
		// bytes.
		attrs = append([]netlink.Attribute{{Type: unix.NFTA_MASQ_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)}}, attrs...)
	}
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	return e.addRaw("masq", data)
}

func hasPorts(proto int) bool {
	return proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP || proto == unix.IPPROTO_SCTP
}

func (NoTrack) encode(e *encoder) error {
	e.add(&expr.Notrack{})
	return nil
}

// dstNATed is the status bit of connections whose destination is translated
// (IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h).
const dstNATed = 1 << 5

func (MatchDNATed) encode(e *encoder) error {
	e.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: register1})
	e.addAnyBit(dstNATed)
	return nil
}

// targetData is what a NAT map's element holds: an address and a port, each
// padded to a multiple of 4 bytes.
func targetData(targets Field, v Verdict) ([]byte, error) {
	addr, port := v.Target.Addr().Unmap(), v.Target.Port()
	if v.Kind != NATTo || !addr.IsValid() || addr.Is4() != (targets.family() == 4) || addr.Zone() != "" || port == 0 {
		return nil, fmt.Errorf("a map to %s can't lead to %q", targets, v)
	}
	return append(addr.AsSlice(), portBytes(port)...), nil
}

// readTarget is the reverse of targetData.
func readTarget(data []byte) Verdict {
	const port = 4
	addr, ok := netip.AddrFromSlice(data[:max(0, len(data)-port)])
	if !ok {
		return Verdict{Kind: foreignVerdict, Chain: fmt.Sprintf("0x%x", data)}
	}
	return Verdict{Kind: NATTo, Target: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(data[len(data)-port:]))}
}

// String is the statement as nft lists it, save for the IP version where no
// field has one: that is the map's, and Ruleset.String knows it.
func (d DNAT) String() string {
	for _, f := range d.Fields {
		if f.family() != 0 {
			return d.text(f.family())
		}
	}
	return d.text(0)
}

func (d DNAT) text(family int) string {
	return "dnat " + familyWord(family) + "to " + joinFields(d.Fields) + " map @" + d.Map
}

func (s SNAT) String() string {
	addr := s.Addr.Unmap()
	family := 4
	if addr.Is6() {
		family = 6
	}
	return "snat " + familyWord(family) + "to " + addr.String()
}

func familyWord(family int) string {
	switch family {
	case 4:
		return "ip "
	case 6:
		return "ip6 "
	}
	return ""
}

func (m Masquerade) String() string {
	text := "masquerade"
	if m.First != 0 {
		text += " to :" + strconv.Itoa(int(m.First))
		if m.Last != m.First {
			text += "-" + strconv.Itoa(int(m.Last))
		}
	}
	if m.FullyRandom {
		text += " fully-random"
	}
	return text
}

func (MatchDNATed) String() string { return "ct status dnat" }
func (NoTrack) String() string     { return "notrack" }
