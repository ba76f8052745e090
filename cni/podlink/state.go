package podlink

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// hostLink is the host end of a pod's link, or the device that shapes what the pod sends. The
// former is never made here: without the pod's end it would be of no use.
type hostLink struct {
	name  string
	isIFB bool
	mac   link.MAC // zero: any
	mtu   int      // bytes; 0: any
	up    bool
	noARP bool
	alias string
}

// hostLinkOf is a pod's link or a shaping device as it was found.
func hostLinkOf(f link.Found) hostLink {
	if isShapeName(f.Name) {
		return hostLink{name: f.Name, isIFB: true, up: f.Up}
	}
	return hostLink{name: f.Name, mac: f.MAC, mtu: f.MTU, up: f.Up, noARP: f.NoARP, alias: f.Alias}
}

const ifb = "ifb" // the type of shaping devices

// Kind and the following methods are those of a link.Item.
func (l hostLink) Kind() link.Kind { return link.KindLink }
func (l hostLink) Key() string     { return l.name }
func (l hostLink) Device() string  { return l.name }
func (l hostLink) Remove() string  { return "ip link del " + l.name }
func (l hostLink) Add() string {
	if l.isIFB {
		return fmt.Sprintf("ip link add %s%s type ifb", l.name, link.When(l.up, " up"))
	}
	state := " down"
	if l.up {
		state = " up"
	}
	return fmt.Sprintf("ip link set %s%s address %s mtu %d%s alias %q", l.name, state, l.mac, l.mtu,
		link.When(l.noARP, " arp off"), l.alias)
}

// Put changes what differs.
func (l hostLink) Put(k *link.Kernel, now []link.Item) error {
	if l.isIFB {
		return l.addIFB(k)
	}
	device, err := k.Netlink(l.name)
	if err != nil || len(now) == 0 {
		return err
	}
	is := now[0].(hostLink)
	var errs []error
	if is.mac != l.mac {
		errs = append(errs, k.LinkSetHardwareAddr(device, net.HardwareAddr(l.mac[:])))
	}
	if is.mtu != l.mtu {
		errs = append(errs, k.LinkSetMTU(device, l.mtu))
	}
	if is.alias != l.alias {
		errs = append(errs, k.LinkSetAlias(device, l.alias))
	}
	if !is.noARP {
		errs = append(errs, k.LinkSetARPOff(device))
	}
	if !is.up {
		errs = append(errs, k.LinkSetUp(device))
	}
	return errors.Join(errs...)
}

// addIFB makes a shaping device and sets it up, or sets up the one that is there.
func (l hostLink) addIFB(k *link.Kernel) error {
	if now, found := k.Links()[l.name]; found && now.Type != ifb {
		return errors.New("another kind of link has its name")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.name
	if err := k.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil &&
		!errors.Is(err, unix.EEXIST) {
		return err
	}
	if _, err := k.LookAt(l.name); err != nil {
		return err
	}
	device, err := k.Netlink(l.name)
	if err != nil {
		return err
	}
	return k.LinkSetUp(device)
}

// Drop removes a shaping device. A pod's link goes with the pod.
func (l hostLink) Drop(k *link.Kernel) error {
	if !l.isIFB {
		return nil
	}
	device, err := k.Netlink(l.name)
	if err != nil {
		return err
	}
	return k.LinkDel(device)
}

// removesLink says whether a change takes a link away.
func removesLink(op link.Op) bool {
	return op.Next == nil && op.Now[0].Kind() == link.KindLink
}
