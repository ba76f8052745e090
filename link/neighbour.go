package link

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// Neighbour says which MAC an address on a link has. It is permanent.
type Neighbour struct {
	Link      string
	Addr      netip.Addr
	MAC       MAC
	Different string // as in Address
}

// Kind and the following methods are an Item's.
func (n Neighbour) Kind() Kind     { return KindNeighbour }
func (n Neighbour) Key() string    { return fmt.Sprintf("%s dev %s", n.Addr, n.Link) }
func (n Neighbour) Device() string { return n.Link }
func (n Neighbour) Remove() string { return "ip neigh del " + n.Key() }
func (n Neighbour) Add() string {
	return fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent%s", n.Addr,
		n.MAC, n.Link,
		remark(n.Different))
}

// Put adds or replaces the entry.
func (n Neighbour) Put(k *Kernel, _ []Item) error {
	index, err := k.Index(n.Link)
	if err != nil {
		return err
	}
	return k.NeighSet(netlinkNeigh(index, Family(n.Addr), n.Addr, n.MAC))
}

// Drop removes the entry.
func (n Neighbour) Drop(k *Kernel) error {
	index, err := k.Index(n.Link)
	if err != nil {
		return err
	}
	return k.NeighDel(netlinkNeigh(index, Family(n.Addr), n.Addr, n.MAC))
}

// Forward says to which underlay address a VXLAN device sends frames for a MAC: an entry of its
// forwarding database (FDB).
type Forward struct {
	Link      string
	MAC       MAC
	To        netip.Addr
	Different string // as in Address
}

// Kind and the following methods are an Item's.
func (f Forward) Kind() Kind     { return KindForward }
func (f Forward) Key() string    { return fmt.Sprintf("%s dev %s", f.MAC, f.Link) }
func (f Forward) Device() string { return f.Link }
func (f Forward) Remove() string { return "bridge fdb del " + f.Key() }
func (f Forward) Add() string {
	return fmt.Sprintf("bridge fdb replace %s dst %s self permanent%s", f.Key(), f.To,
		remark(f.Different))
}

// Put adds the entry, or replaces its only destination.
func (f Forward) Put(k *Kernel, _ []Item) error {
	index, err := k.Index(f.Link)
	if err != nil {
		return err
	}
	entry := netlinkNeigh(index, unix.AF_BRIDGE, f.To, f.MAC)
	entry.Flags = netlink.NTF_SELF
	return k.NeighSet(entry)
}

// Drop removes all entries of the MAC on the device, whatever their destination.
func (f Forward) Drop(k *Kernel) error {
	index, err := k.Index(f.Link)
	if err != nil {
		return err
	}
	request := k.Request(unix.RTM_DELNEIGH, unix.NLM_F_ACK)
	request.AddData(&netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(index),
		Flags: netlink.NTF_SELF, //nolint:gosec // positive
	})
	request.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, f.MAC[:]))
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// Neighbours is the permanent neighbours on some links. The kernel makes others by itself, and
// forgets them.
func (k *Kernel) Neighbours(on func(name string) bool) (State, error) {
	var all State
	for _, family := range []uint8{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		entries, err := k.entries(family, on)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.state&netlink.NUD_PERMANENT != 0 {
				all = append(all, Neighbour{k.Name(e.index), e.dst, e.mac, e.different()})
			}
		}
	}
	return all, nil
}

// Forwards is the forwarding databases of some VXLAN devices.
func (k *Kernel) Forwards(on func(name string) bool) (State, error) {
	entries, err := k.entries(unix.AF_BRIDGE, on)
	if err != nil {
		return nil, err
	}
	var all State
	for _, e := range entries {
		if e.flags&netlink.NTF_MASTER == 0 { // those are a bridge's
			all = append(all, Forward{k.Name(e.index), e.mac, e.dst, e.different()})
		}
	}
	return all, nil
}

// entry is one of a neighbour table or of a forwarding database, with the parts that the netlink
// library leaves out.
type entry struct {
	index int // of the link
	state uint16
	flags uint8
	dst   netip.Addr
	mac   MAC
	odd   []string // attributes that we never set
}

func (e entry) different() string {
	odd := e.odd
	if e.state != netlink.NUD_PERMANENT {
		odd = append(odd, fmt.Sprintf("state %#x", e.state))
	}
	if e.flags&^(netlink.NTF_SELF|netlink.NTF_OFFLOADED) != 0 {
		odd = append(odd, fmt.Sprintf("flags %#x", e.flags))
	}
	return join(odd)
}

// entries lists a family's entries on some links.
func (k *Kernel) entries(family uint8, on func(name string) bool) ([]entry, error) {
	return Whole("neighbours", func() (all []entry, err error) {
		request := k.Request(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		request.AddData(&netlink.Ndmsg{Family: family})
		err = request.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH, func(m []byte) bool {
			if e, ok := parseEntry(m); ok && on(k.Name(e.index)) {
				all = append(all, e)
			}
			return true
		})
		return all, err
	})
}

// parseEntry reads an RTM_NEWNEIGH message: struct ndmsg and attributes.
func parseEntry(m []byte) (entry, bool) {
	const indexAt, stateAt, flagsAt = 4, 8, 10
	if len(m) < unix.SizeofNdMsg {
		return entry{}, false
	}
	e := entry{
		index: int(
			int32(
				binary.NativeEndian.Uint32(m[indexAt:]))), //nolint:gosec // as the kernel means it
		state: binary.NativeEndian.Uint16(m[stateAt:]),
		flags: m[flagsAt],
	}
	for kind, value := range attribute.All(m[unix.SizeofNdMsg:]) {
		switch kind {
		case netlink.NDA_DST:
			e.dst = Addr(value)
		case netlink.NDA_LLADDR:
			copy(e.mac[:], value)
		case netlink.NDA_PORT:
			e.odd = append(e.odd, fmt.Sprintf("port %x", value))
		case netlink.NDA_VNI, netlink.NDA_SRC_VNI:
			e.odd = append(e.odd, fmt.Sprintf("vni %d", number(value)))
		case netlink.NDA_IFINDEX:
			e.odd = append(e.odd, fmt.Sprintf("via if%d", number(value)))
		case netlink.NDA_NH_ID:
			e.odd = append(e.odd, fmt.Sprintf("nhid %d", number(value)))
		}
	}
	return e, true
}

// netlinkNeigh is what the library needs to change an entry.
func netlinkNeigh(index, family int, dst netip.Addr, mac MAC) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    index,
		Family:       family,
		State:        netlink.NUD_PERMANENT,
		IP:           dst.AsSlice(),
		HardwareAddr: net.HardwareAddr(mac[:]),
	}
}
