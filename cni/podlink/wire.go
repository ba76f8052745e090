package podlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
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
	host, err := link.Open(link.ProcSys)
	if err != nil {
		return err
	}
	defer host.Close()
	var pod *link.Kernel
	if err := podNS.Do(func(ns.NetNS) error {
		pod, err = link.Open(link.ProcSys)
		return err
	}); err != nil {
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
			deleteLink(host, w.HostName, w.HostMAC))
	}
	return nil
}

func wireEnds(
	ctx context.Context, host, pod *link.Kernel, podNS ns.NetNS, veth *netlink.Veth, w Wiring,
) error {
	inside, err := pod.LookAt(w.PodName)
	if err != nil {
		return fmt.Errorf("finding the pod's end: %w", err)
	}
	hostEnd, err := prepareHostEnd(host, w)
	if err != nil {
		return err
	}
	if err := podNS.Do(func(ns.NetNS) error { return preparePodEnd(pod, inside, w) }); err != nil {
		return err
	}
	// Both ends are up: addresses, neighbours and routes stay.
	if err := furnishPodEnd(pod, w.PodName, w); err != nil {
		return err
	}
	if err := hostEnd.furnish(); err != nil {
		return err
	}
	if err := awaitReady(ctx, pod, w.PodName, inside.Index, w.Addrs); err != nil {
		return err
	}
	var local []netip.Addr
	if w.has6() {
		local = append(local, gateway6)
	}
	return awaitReady(ctx, host, w.HostName, veth.Index, local)
}

// Delete deletes the link of this name in the namespace of the calling thread, unless its MAC says
// that it is another attachment's. A nil MAC stands for any. A link that isn't there is no error.
func Delete(name string, mac net.HardwareAddr) error {
	host, err := link.Open(link.ProcSys)
	if err != nil {
		return err
	}
	defer host.Close()
	return deleteLink(host, name, mac)
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

func deleteLink(k *link.Kernel, name string, mac net.HardwareAddr) error {
	found, err := k.LookAt(name)
	if errors.Is(err, link.ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	if mac != nil && mac.String() != found.MAC.String() {
		return nil
	}
	device, err := k.Netlink(name)
	if err != nil {
		return err
	}
	if err := k.LinkDel(device); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("deleting link %s: %w", name, err)
	}
	return nil
}

// awaitReady returns when the link carries packets and the addresses are local. The kernel takes
// its time with both: a link whose carrier has just come drops packets until its queue is attached,
// which asking for its state hurries, and an IPv6 address is local some time after it was added,
// even without duplicate address detection.
func awaitReady(ctx context.Context, k *link.Kernel, name string, index int,
	addrs []netip.Addr) error {
	err := poll(ctx, func() (bool, error) {
		now, err := k.LinkByIndex(index)
		return err == nil && now.Attrs().OperState == netlink.OperUp, err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to be up: %w", name, err)
	}
	for _, addr := range addrs {
		if err := poll(ctx, func() (bool, error) { return isLocal(k, index, addr) }); err != nil {
			return fmt.Errorf("waiting for address %s on %s: %w", addr, name, err)
		}
	}
	return nil
}

func isLocal(k *link.Kernel, index int, addr netip.Addr) (bool, error) {
	var options netlink.RouteGetOptions
	if addr.IsLinkLocalUnicast() {
		options.OifIndex = index
	}
	routes, err := k.RouteGetWithOptions(addr.AsSlice(), &options)
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
