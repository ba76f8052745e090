package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// neighbour is an entry of a neighbour table or of a forwarding database, with the parts that the netlink library leaves out.
type neighbour struct {
	index int // of the link
	state uint16
	flags uint8
	dst   netip.Addr
	mac   MAC
	odd   []string // attributes that we never set
}

// ours is false for what the kernel makes by itself in a neighbour table, and forgets again.
func (n neighbour) ours() bool { return n.state&netlink.NUD_PERMANENT != 0 }

func (n neighbour) different() string {
	odd := n.odd
	if n.state != netlink.NUD_PERMANENT {
		odd = append(odd, fmt.Sprintf("state %#x", n.state))
	}
	if n.flags&^(netlink.NTF_SELF|netlink.NTF_OFFLOADED) != 0 {
		odd = append(odd, fmt.Sprintf("flags %#x", n.flags))
	}
	return strings.Join(odd, " ")
}

// parseNeighbour reads an RTM_NEWNEIGH message: struct ndmsg and attributes.
func parseNeighbour(m []byte) (neighbour, error) {
	if len(m) < unix.SizeofNdMsg {
		return neighbour{}, fmt.Errorf("a neighbour message of %d bytes", len(m))
	}
	n := neighbour{
		index: int(int32(binary.NativeEndian.Uint32(m[4:]))), //nolint:gosec // as the kernel means it
		state: binary.NativeEndian.Uint16(m[8:]),
		flags: m[10],
	}
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofNdMsg:])
	if err != nil {
		return neighbour{}, fmt.Errorf("reading a neighbour's attributes: %w", err)
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case netlink.NDA_DST:
			n.dst = addrOf(a.Value)
		case netlink.NDA_LLADDR:
			copy(n.mac[:], a.Value)
		case netlink.NDA_PORT:
			n.odd = append(n.odd, fmt.Sprintf("port %d", binary.BigEndian.Uint16(a.Value)))
		case netlink.NDA_VNI, netlink.NDA_SRC_VNI:
			n.odd = append(n.odd, fmt.Sprintf("vni %d", binary.NativeEndian.Uint32(a.Value)))
		case netlink.NDA_IFINDEX:
			n.odd = append(n.odd, fmt.Sprintf("via if%d", binary.NativeEndian.Uint32(a.Value)))
		case netlink.NDA_NH_ID:
			n.odd = append(n.odd, fmt.Sprintf("nhid %d", binary.NativeEndian.Uint32(a.Value)))
		}
	}
	return n, nil
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

func (k *kernel) addNeighbour(n Neighbour) error {
	index, err := k.index(n.Device)
	if err != nil {
		return err
	}
	return k.NeighSet(netlinkNeigh(index, netlinkFamily(n.Addr), n.Addr, n.MAC))
}

func (k *kernel) removeNeighbour(n Neighbour) error {
	index, err := k.index(n.Device)
	if err != nil {
		return nil //nolint:nilerr // it went with its device
	}
	return k.NeighDel(netlinkNeigh(index, netlinkFamily(n.Addr), n.Addr, n.MAC))
}

func (k *kernel) addForward(f Forward) error {
	index, err := k.index(f.Device)
	if err != nil {
		return err
	}
	entry := netlinkNeigh(index, unix.AF_BRIDGE, f.To, f.MAC)
	entry.Flags = netlink.NTF_SELF
	return k.NeighSet(entry)
}

// removeForward removes all of a MAC's entries on a device, whatever their destination.
func (k *kernel) removeForward(f Forward) error {
	index, err := k.index(f.Device)
	if err != nil {
		return nil //nolint:nilerr // it went with its device
	}
	request := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK)
	request.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(index), Flags: netlink.NTF_SELF}) //nolint:gosec // positive
	request.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, f.MAC[:]))
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// gone says whether an error of a removal says that there is nothing to remove.
func gone(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL, unix.ENXIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
