package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addTunnel makes a device, or makes an existing one right: in place where the kernel can do that, by replacing it otherwise.
func (k *kernel) addTunnel(old []Tunnel, want Tunnel) error {
	err := k.makeTunnel(old, want)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EADDRINUSE) {
		if other := k.inTheWay(want); other != nil {
			return fmt.Errorf("link %s has VNI %d and UDP port %d: remove it, or configure others: %w", other.Name, other.VxlanId, other.Port, err)
		}
	}
	return err
}

func (k *kernel) makeTunnel(old []Tunnel, want Tunnel) error {
	if len(old) > 0 {
		if link, found := k.links[want.Name]; found && old[0].fixable(want) {
			return k.fixTunnel(link, old[0], want)
		}
		if err := k.removeTunnel(old[0]); err != nil && !gone(err) {
			return fmt.Errorf("removing the wrong one: %w", err)
		}
	}
	if err := k.createTunnel(want); err != nil {
		return err
	}
	link, err := k.LinkByName(want.Name)
	if err != nil {
		return fmt.Errorf("finding it: %w", err)
	}
	k.links[want.Name], k.names[link.Attrs().Index] = link, want.Name
	return k.startTunnel(link)
}

// fixable says whether the device can become the one that is wanted. The rest of a VXLAN device is set for life.
func (t Tunnel) fixable(want Tunnel) bool {
	if t.Different == enslaved {
		t.Different = ""
	}
	t.MAC, t.MTU, t.Up, t.Learning = want.MAC, want.MTU, want.Up, want.Learning
	return t == want
}

func (k *kernel) fixTunnel(link netlink.Link, old, want Tunnel) error {
	if old.Different == enslaved {
		if err := k.LinkSetNoMaster(link); err != nil {
			return fmt.Errorf("releasing it from its master: %w", err)
		}
	}
	if old.MAC != want.MAC {
		if err := k.LinkSetHardwareAddr(link, net.HardwareAddr(want.MAC[:])); err != nil {
			return fmt.Errorf("setting its MAC: %w", err)
		}
	}
	if old.MTU != want.MTU {
		if err := k.LinkSetMTU(link, want.MTU); err != nil {
			return fmt.Errorf("setting its MTU: %w", err)
		}
	}
	if old.Learning != want.Learning {
		if err := k.setLearning(link, want.Learning); err != nil {
			return fmt.Errorf("setting its learning: %w", err)
		}
	}
	return k.startTunnel(link)
}

// startTunnel sets a device up. It gets no IPv6 address but ours: nobody asks for neighbours there.
func (k *kernel) startTunnel(link netlink.Link) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err := k.LinkSetIP6AddrGenMode(link, none)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) { // no IPv6 in this kernel
		return fmt.Errorf("turning its link-local address off: %w", err)
	}
	if err := k.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting it up: %w", err)
	}
	return nil
}

// createTunnel sends RTM_NEWLINK with attributes of our own making: the netlink library can't say "no UDP checksums", only "yes" or
// nothing, which is "yes" too.
func (k *kernel) createTunnel(t Tunnel) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(t.Name)))
	request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, t.MAC[:]))
	request.AddData(nl.NewRtAttr(unix.IFLA_MTU, uint32Attr(t.MTU)))
	data := addVXLANInfo(request)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(t.VNI))
	if t.Device != "" {
		device, err := k.index(t.Device)
		if err != nil {
			return err
		}
		data.AddRtAttr(nl.IFLA_VXLAN_LINK, uint32Attr(device))
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

func (k *kernel) setLearning(link netlink.Link, on bool) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(link.Attrs().Index) //nolint:gosec // as the kernel means it
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

// inTheWay is another VXLAN device beside which the kernel doesn't take ours, such as flannel's: one with the same VNI and port, or
// one that has the port with other ideas about checksums. It is nil if there is none.
func (k *kernel) inTheWay(t Tunnel) *netlink.Vxlan {
	for name, link := range k.links {
		other, isVXLAN := link.(*netlink.Vxlan)
		if isVXLAN && name != t.Name && other.Port == int(t.Port) {
			return other
		}
	}
	return nil
}

func (k *kernel) removeTunnel(t Tunnel) error {
	link, found := k.links[t.Name]
	if !found {
		return nil
	}
	return k.LinkDel(link)
}
