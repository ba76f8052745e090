package podlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
)

// Wiring is one pod's link as it should be.
type Wiring struct {
	HostName, PodName string // of the two ends
	HostMAC, PodMAC   net.HardwareAddr
	MTU               int    // bytes; 0: the kernel's default
	Alias             string // of the host end
	Addrs             []netip.Addr
	NodeAddrs         []netip.Addr // what the node uses towards the pod
	HasHostPort4      bool         // an IPv4 port of the node leads to the pod
}

func (w Wiring) has6() bool { return cni.Has6(w.Addrs) }

// Wire makes a pod's link, the pod's end in podNS and the host's in the namespace of the calling
// thread, and returns when both carry packets. After an error the link is gone.
func Wire(ctx context.Context, podNS ns.NetNS, w Wiring) error {
	host, err := openSpace()
	if err != nil {
		return err
	}
	defer host.Close()
	var pod space
	if err := podNS.Do(func(ns.NetNS) error { pod, err = openSpace(); return err }); err != nil {
		return fmt.Errorf("entering the pod's network namespace: %w", err)
	}
	defer pod.Close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name = w.HostName
	attrs.HardwareAddr = w.HostMAC
	attrs.MTU = w.MTU
	veth := netlink.NewVeth(attrs)
	veth.PeerName = w.PodName
	veth.PeerHardwareAddr = w.PodMAC
	veth.PeerNamespace = netlink.NsFd(podNS.Fd())
	if err := host.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the pod's link %s: %w", w.HostName, err)
	}
	err = wireEnds(ctx, host, pod, podNS, veth, w)
	if err != nil {
		return errors.Join(fmt.Errorf("wiring the pod's link %s: %w", w.HostName, err),
			host.deleteLink(w.HostName, w.HostMAC))
	}
	return nil
}

func wireEnds(
	ctx context.Context, host, pod space, podNS ns.NetNS, veth *netlink.Veth, w Wiring,
) error {
	inside, err := pod.LinkByName(w.PodName)
	if err != nil {
		return fmt.Errorf("finding the pod's end: %w", err)
	}
	hostEnd, err := host.prepareHostEnd(w)
	if err != nil {
		return err
	}
	if err := podNS.Do(func(ns.NetNS) error { return pod.preparePodEnd(inside, w) }); err != nil {
		return err
	}
	// Both ends are up: addresses, neighbours and routes stay.
	if err := pod.furnishPodEnd(inside, w); err != nil {
		return err
	}
	if err := hostEnd.furnish(); err != nil {
		return err
	}
	if err := pod.awaitReady(ctx, inside, w.Addrs); err != nil {
		return err
	}
	var local []netip.Addr
	if w.has6() {
		local = append(local, gateway6)
	}
	return host.awaitReady(ctx, veth, local)
}

// Delete deletes the link of this name in the namespace of the calling thread, unless its MAC says
// that it is another attachment's. A nil MAC stands for any. A link that isn't there is no error.
func Delete(name string, mac net.HardwareAddr) error {
	host, err := openSpace()
	if err != nil {
		return err
	}
	defer host.Close()
	return host.deleteLink(name, mac)
}

// DeletePodEnd is Delete for the pod's end, with which the host's goes. A namespace that is gone is
// no error.
func DeletePodEnd(netns, name string, mac net.HardwareAddr) error {
	err := ns.WithNetNSPath(netns, func(ns.NetNS) error { return Delete(name, mac) })
	if gone := (ns.NSPathNotExistErr{}); errors.As(err, &gone) {
		return nil
	}
	if notNS := (ns.NSPathNotNSErr{}); errors.As(err, &notNS) {
		return nil // an empty file is left of an unmounted one
	}
	return err
}

// space is a network namespace to change. Where the namespace of the thread matters, a method says
// so.
type space struct{ netlinksafe.Handle }

// openSpace opens the network namespace of the calling thread.
func openSpace() (space, error) {
	handle, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return space{}, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return space{handle}, nil
}

func (s space) deleteLink(name string, mac net.HardwareAddr) error {
	link, err := s.LinkByName(name)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for link %s: %w", name, err)
	}
	if mac != nil && mac.String() != link.Attrs().HardwareAddr.String() {
		return nil
	}
	if err := s.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("deleting link %s: %w", name, err)
	}
	return nil
}

// awaitReady returns when the link carries packets and the addresses are local. The kernel takes
// its time with both: a link whose carrier has just come drops packets until its queue is attached,
// which asking for its state hurries, and an IPv6 address is local some time after it was added,
// even without duplicate address detection.
func (s space) awaitReady(ctx context.Context, link netlink.Link, addrs []netip.Addr) error {
	name := link.Attrs().Name
	err := poll(ctx, func() (bool, error) {
		now, err := s.LinkByIndex(link.Attrs().Index)
		return err == nil && now.Attrs().OperState == netlink.OperUp, err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to be up: %w", name, err)
	}
	for _, addr := range addrs {
		if err := poll(ctx, func() (bool, error) { return s.isLocal(link, addr) }); err != nil {
			return fmt.Errorf("waiting for address %s on %s: %w", addr, name, err)
		}
	}
	return nil
}

func (s space) isLocal(link netlink.Link, addr netip.Addr) (bool, error) {
	var options netlink.RouteGetOptions
	if addr.IsLinkLocalUnicast() {
		options.OifIndex = link.Attrs().Index
	}
	routes, err := s.RouteGetWithOptions(addr.AsSlice(), &options)
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return false, nil
	}
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, err
}

// poll asks until the answer is yes or an error, or ctx ends: at first often, as most of what is
// waited for takes well below a millisecond, and then less and less, as a busy machine has better
// things to do.
func poll(ctx context.Context, done func() (bool, error)) error {
	const first, last = 50 * time.Microsecond, 10 * time.Millisecond
	timer := time.NewTimer(first)
	defer timer.Stop()
	for wait := first; ; wait = min(2*wait, last) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
