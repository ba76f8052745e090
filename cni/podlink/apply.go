package podlink

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostKernel changes the network namespace of the calling thread.
type hostKernel struct {
	space
	sysctlDir string             // procSys, or where that is writable
	links     map[string]podLink // as of the last look
	isNew     bool               // they are new, so that what others have stays theirs
	shaping   shapingKernel      // nil: without shaping
}

// apply makes changes in order, each through turn, and goes on after a failure; the first errors
// are joined. Adding what is there and removing what isn't are no errors. Turn calls what it gets,
// or is false: then the rest isn't wanted any more.
func (k *hostKernel) apply(ops []hostOp, turn func(func()) bool) error {
	var errs []error
	for _, op := range ops {
		change := func() {
			if err := k.applyOne(op); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", op, err))
			}
		}
		if op.removesLink() {
			change() // it takes long, and who wants the link back gets it back
		} else if !turn(change) {
			break
		}
	}
	const enough = 5 // to see what is wrong
	if more := len(errs) - enough; more > 0 {
		errs = append(errs[:enough], fmt.Errorf("and %d more failed", more))
	}
	return errors.Join(errs...)
}

func (k *hostKernel) applyOne(op hostOp) error {
	if op.next == nil || len(op.old) > 1 {
		for _, item := range op.old {
			if err := k.remove(item); err != nil && !isGone(err) {
				return err
			}
		}
	}
	if op.next == nil {
		return nil
	}
	err := k.add(op.next)
	if errors.Is(err, unix.EEXIST) && !k.isNew { // the plugin wants the same
		return nil
	}
	return err
}

func (k *hostKernel) add(item any) error {
	switch item := item.(type) {
	case hostLink:
		return k.setLink(item)
	case linkSysctl:
		return os.WriteFile(filepath.Join(k.sysctlDir, item.path()),
			strconv.AppendInt(nil, int64(item.value), 10), 0)
	case hostAddress:
		address := &netlink.Addr{IPNet: IPNet(item.prefix)}
		if item.prefix.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		return k.withLink(item.link, func(link netlink.Link) error {
			return k.AddrReplace(link, address)
		})
	case hostNeighbour:
		return k.withLink(item.link, func(link netlink.Link) error {
			return k.addNeighbour(link, item.addr, item.mac[:])
		})
	case hostRoute:
		return k.replaceRoute(item)
	default:
		if k.shaping == nil {
			return fmt.Errorf("no such kind of thing: %T", item)
		}
		return k.shaping.add(item)
	}
}

func (k *hostKernel) remove(item any) error {
	switch item := item.(type) {
	case hostLink:
		if !item.isIFB { // a pod's link goes with the pod
			return nil
		}
		return k.withLink(item.name, k.LinkDel)
	case hostAddress:
		return k.withLink(item.link, func(link netlink.Link) error {
			return k.AddrDel(link, &netlink.Addr{IPNet: IPNet(item.prefix)})
		})
	case hostNeighbour:
		return k.withLink(item.link, func(link netlink.Link) error {
			return k.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index,
				IP: item.addr.AsSlice()})
		})
	case hostRoute:
		return k.RouteDel(&netlink.Route{
			Dst: IPNet(item.to), Priority: item.metric, Tos: item.tos, Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN,
			Scope: netlink.SCOPE_NOWHERE, // any
		})
	case linkSysctl: // is compared only where it should be
		return nil
	default:
		if k.shaping == nil {
			return nil
		}
		return k.shaping.remove(item)
	}
}

// withLink calls f with what the library needs to know of a link. One that is gone took everything
// with it.
func (k *hostKernel) withLink(name string, f func(netlink.Link) error) error {
	link, found := k.links[name]
	if !found {
		return nil
	}
	return f(asLink(link))
}

func asLink(link podLink) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: link.name, Index: link.index}}
}

// isGone tells whether an error of a removal says that there is nothing to remove.
func isGone(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL,
		unix.ENXIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (k *hostKernel) setLink(want hostLink) error {
	if want.isIFB {
		return k.addIFB(want)
	}
	return k.withLink(want.name, func(link netlink.Link) error {
		now := k.links[want.name]
		var errs []error
		if now.mac != want.mac {
			errs = append(errs, k.LinkSetHardwareAddr(link, net.HardwareAddr(want.mac[:])))
		}
		if now.mtu != want.mtu {
			errs = append(errs, k.LinkSetMTU(link, want.mtu))
		}
		if now.alias != want.alias {
			errs = append(errs, k.LinkSetAlias(link, want.alias))
		}
		if !now.noARP {
			errs = append(errs, k.LinkSetARPOff(link))
		}
		if !now.up {
			errs = append(errs, k.LinkSetUp(link))
		}
		return errors.Join(errs...)
	})
}

// addIFB makes a shaping device and sets it up, or sets up the one that is there.
func (k *hostKernel) addIFB(want hostLink) error {
	if now, found := k.links[want.name]; found && !now.isIFB {
		return errors.New("another kind of link has its name")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = want.name
	if err := k.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil &&
		!errors.Is(err, unix.EEXIST) {
		return err
	}
	link, err := k.LinkByName(want.name)
	if err != nil {
		return err
	}
	k.links[want.name] = podLink{hostLink: want, index: link.Attrs().Index} // for what follows
	return k.LinkSetUp(link)
}

// replaceRoute puts a route in the place of any with its destination and metric, unless the links
// are new.
func (k *hostKernel) replaceRoute(want hostRoute) error {
	route := &netlink.Route{
		Dst: IPNet(want.to), Priority: want.metric, Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN, Src: want.src.AsSlice(),
	}
	if want.link == "" {
		route.Type = unix.RTN_UNREACHABLE
		return k.RouteReplace(route)
	}
	return k.withLink(want.link, func(link netlink.Link) error {
		route.LinkIndex = link.Attrs().Index
		if want.to.Addr().Is4() {
			route.Scope = netlink.SCOPE_LINK
		}
		if k.isNew {
			return k.addRoute(want, route)
		}
		return k.RouteReplace(route)
	})
}
