package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// Put makes a device, or makes an existing one right: in place where the kernel can do that, by
// replacing it otherwise.
func (t Tunnel) Put(k *link.Kernel, now []link.Item) error {
	err := t.put(k, now)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EADDRINUSE) {
		one := func(*netlink.Vxlan) bool { return true } // the kernel has said that there is one
		if other := t.beside(k, one); other != nil {
			return fmt.Errorf(
				"link %s has VNI %d and UDP port %d: remove it, or configure others: %w",
				other.Name, other.VxlanId, other.Port, err)
		}
	}
	return err
}

func (t Tunnel) put(k *link.Kernel, now []link.Item) error {
	if len(now) == 1 {
		old := now[0].(Tunnel)
		if old.fixable(t) {
			return t.fix(k, old)
		}
		if err := old.Drop(k); err != nil && !link.IsGone(err) {
			return fmt.Errorf("removing the wrong one: %w", err)
		}
	}
	if err := t.create(k); err != nil {
		return err
	}
	if _, err := k.LookAt(t.Name); err != nil {
		return fmt.Errorf("finding it: %w", err)
	}
	return t.start(k)
}

// Drop removes the device, with all that is on it.
func (t Tunnel) Drop(k *link.Kernel) error {
	device, err := k.Netlink(t.Name)
	if err != nil {
		return err
	}
	return k.LinkDel(device)
}

// fixable says whether the device can become the one that is wanted. The rest of a VXLAN device is
// set for life.
func (t Tunnel) fixable(want Tunnel) bool {
	if t.Different == enslaved {
		t.Different = ""
	}
	t.MAC, t.MTU, t.Up, t.Learning = want.MAC, want.MTU, want.Up, want.Learning
	return t == want
}

func (t Tunnel) fix(k *link.Kernel, old Tunnel) error {
	device, err := k.Netlink(t.Name)
	if err != nil {
		return err
	}
	if old.Different == enslaved {
		if err := k.LinkSetNoMaster(device); err != nil {
			return fmt.Errorf("releasing it from its master: %w", err)
		}
	}
	if old.MAC != t.MAC {
		if err := k.LinkSetHardwareAddr(device, net.HardwareAddr(t.MAC[:])); err != nil {
			return fmt.Errorf("setting its MAC: %w", err)
		}
	}
	if old.MTU != t.MTU {
		if err := k.LinkSetMTU(device, t.MTU); err != nil {
			return fmt.Errorf("setting its MTU: %w", err)
		}
	}
	if old.Learning != t.Learning {
		if err := setLearning(k, device.Attrs().Index, t.Learning); err != nil {
			return fmt.Errorf("setting its learning: %w", err)
		}
	}
	return t.start(k)
}

// start sets the device up. It gets no IPv6 address but ours: nobody asks for neighbours there.
func (t Tunnel) start(k *link.Kernel) error {
	device, err := k.Netlink(t.Name)
	if err != nil {
		return err
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err = k.LinkSetIP6AddrGenMode(device, none)
	hasIPv6 := !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP)
	if err != nil && hasIPv6 {
		return fmt.Errorf("turning its link-local address off: %w", err)
	}
	if err := k.LinkSetUp(device); err != nil {
		return fmt.Errorf("setting it up: %w", err)
	}
	return nil
}

// create sends RTM_NEWLINK with attributes of our own making: the netlink library can't say "no UDP
// checksums", only "yes" or nothing, which is "yes" too.
func (t Tunnel) create(k *link.Kernel) error {
	request := k.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(t.Name)))
	request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, t.MAC[:]))
	request.AddData(nl.NewRtAttr(unix.IFLA_MTU, uint32Attr(t.MTU)))
	data := addVXLANInfo(request)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(t.VNI))
	if t.Below != "" {
		below, err := k.Index(t.Below)
		if err != nil {
			return err
		}
		data.AddRtAttr(nl.IFLA_VXLAN_LINK, uint32Attr(below))
	}
	if t.Local.Is4() {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL, t.Local.AsSlice())
	} else {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL6, t.Local.AsSlice())
	}
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, nl.BEUint16Attr(t.Port))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, boolAttr(t.Learning))
	data.AddRtAttr(nl.IFLA_VXLAN_UDP_CSUM, boolAttr(t.Checksum))
	data.AddRtAttr(nl.IFLA_VXLAN_UDP_ZERO_CSUM6_TX, boolAttr(t.ZeroTx6))
	data.AddRtAttr(nl.IFLA_VXLAN_UDP_ZERO_CSUM6_RX, boolAttr(t.ZeroRx6))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func setLearning(k *link.Kernel, index int, on bool) error {
	request := k.Request(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index) //nolint:gosec // as the kernel means it
	request.AddData(message)
	addVXLANInfo(request).AddRtAttr(nl.IFLA_VXLAN_LEARNING, boolAttr(on))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// addVXLANInfo is where a request's VXLAN attributes go.
func addVXLANInfo(request *nl.NetlinkRequest) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	request.AddData(info)
	return info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
}

func boolAttr(on bool) []byte {
	if on {
		return []byte{1}
	}
	return []byte{0}
}

func uint32Attr(n int) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(n)) //nolint:gosec // an MTU or an index
}

// beside is another VXLAN device with our port, such as flannel's, of those that are meant; nil if
// there is none. One of the other IP family has a socket of its own, and is never meant.
func (t Tunnel) beside(k *link.Kernel, is func(*netlink.Vxlan) bool) *netlink.Vxlan {
	for name, found := range k.Links() {
		if found.Type != "vxlan" || name == t.Name {
			continue
		}
		device, err := k.LinkByIndex(found.Index)
		other, isVXLAN := device.(*netlink.Vxlan)
		if err == nil && isVXLAN && other.Port == int(t.Port) && t.meets(other) && is(other) {
			return other
		}
	}
	return nil
}

// meets says whether another device's socket is of our IP family, as its addresses are: one without
// any has IPv4's, and one for packets of any VNI both. Without our address both count.
func (t Tunnel) meets(other *netlink.Vxlan) bool {
	is6 := len(other.SrcAddr) == net.IPv6len || len(other.Group) == net.IPv6len
	return !t.Local.IsValid() || other.FlowBased || is6 == t.Local.Is6()
}

// collides says whether the kernel would refuse the tunnel because of another device with its port:
// one with the same VNI, or with other ideas of what it receives. Otherwise they share the port.
func (t Tunnel) collides(other *netlink.Vxlan) bool {
	return other.VxlanId == int(t.VNI) || other.GBP || other.FlowBased ||
		other.UDP6ZeroCSumRx != t.ZeroRx6
}
