package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// protoRegister is the register of the port in a NAT map's data, which begins in register 1 with an
// address of that family.
func protoRegister(targets nft.Field) uint32 {
	if targets.Family() == 6 {
		return register1 + 1
	}
	return unix.NFT_REG32_00 + 1
}

func (e *encoder) dnat(d nft.DNAT) error {
	family, err := d.Family(e.sets)
	if err != nil {
		return err
	}
	if !slices.Contains(d.Fields, nft.L4Proto) {
		return errors.New("ports can only be translated by a key that has the protocol")
	}
	if err := e.loadFields(d.Fields); err != nil {
		return err
	}
	targets, nfproto := nft.DstAddr4, uint32(unix.NFPROTO_IPV4)
	if family == 6 {
		targets, nfproto = nft.DstAddr6, unix.NFPROTO_IPV6
	}
	port := protoRegister(targets)
	e.add(
		&expr.Lookup{SourceRegister: register1, SetName: d.Map, DestRegister: register1,
			IsDestRegSet: true},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: nfproto,
			RegAddrMin: register1, RegAddrMax: register1, RegProtoMin: port, RegProtoMax: port,
			Specified: true,
		},
	)
	return nil
}

func (e *encoder) snat(s nft.SNAT) error {
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
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: nfproto, RegAddrMin: register1,
			RegAddrMax: register1},
	)
	return nil
}

// Flags of a translation (linux/netfilter/nf_nat.h).
const (
	natProtoSpecified   = 1 << 1
	natProtoRandomFully = 1 << 4
)

// masquerade makes the expression by hand: the library's sends either the ports or the flags, and
// without a flag that says so the kernel doesn't look at the ports.
func (e *encoder) masquerade(m nft.Masquerade) error {
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
		// In the kernel's order: an expression that is read back is compared as bytes.
		attrs = append([]netlink.Attribute{{Type: unix.NFTA_MASQ_FLAGS,
			Data: binary.BigEndian.AppendUint32(nil, flags)}}, attrs...)
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

func (e *encoder) noTrack() error {
	e.add(&expr.Notrack{})
	return nil
}

// dstNATed is the status bit of connections whose destination is translated (IPS_DST_NAT,
// linux/netfilter/nf_conntrack_common.h).
const dstNATed = 1 << 5

func (e *encoder) matchDNATed() error {
	e.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: register1})
	e.addAnyBit(dstNATed)
	return nil
}

// targetData is what a NAT map's element holds: an address and a port, each padded to a multiple of
// 4 bytes.
func targetData(targets nft.Field, v nft.Verdict) ([]byte, error) {
	addr, port := v.Target.Addr().Unmap(), v.Target.Port()
	if v.Kind != nft.NATTo || !addr.IsValid() || addr.Is4() != (targets.Family() == 4) ||
		addr.Zone() != "" || port == 0 {
		return nil, fmt.Errorf("a map to %s can't lead to %q", targets, v)
	}
	return append(addr.AsSlice(), byte(port>>8), byte(port), 0, 0), nil
}

// readTarget is the reverse of targetData.
func readTarget(data []byte) nft.Verdict {
	const port = 4
	addr, ok := netip.AddrFromSlice(data[:max(0, len(data)-port)])
	if !ok {
		return nft.Verdict{Kind: nft.ForeignVerdict, Chain: fmt.Sprintf("0x%x", data)}
	}
	return nft.Verdict{Kind: nft.NATTo,
		Target: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(data[len(data)-port:]))}
}
