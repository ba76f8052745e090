package foreign

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// testLinkScope: on a bridge, pods reach each other by addresses that are no pod's: multicast,
// broadcast, and link-local ones. None of them leads to a pod that nothing may talk to.
func (w *world) testLinkScope() {
	t := w.t
	w.apply(noWeb)
	var webs []string
	var flows []flow
	before := map[string]int{}
	for _, node := range w.Nodes() {
		web, client := on(node, "shop/web"), on(node, "shop/client")
		webs, flows = append(webs, web), append(flows, tcp(client, web, 80))
		w.denied(flows[len(flows)-1])
		before[web] = w.datagrams(web)
		w.sendToAll(client, node)
		dst := netip.AddrPortFrom(w.linkLocal(client, web), 80)
		if r := w.connect(client, probe.TCP, dst); r.OK || !(lab.Cell{Result: r}).Denied() {
			t.Errorf("%s -> %s %s: got %s, want it denied", client, web, dst, r)
		}
	}
	w.denied(flows...) // which takes a while
	for _, web := range webs {
		if n := w.datagrams(web) - before[web]; n != 0 {
			t.Errorf("%d datagrams to everybody arrived at %s", n, web)
		}
	}
	must(t, w.Delete(t.Context(), noWeb))
	w.allowed(flows...)
}

// linkLocal returns the link-local address of a pod as another one uses it. The zone is a number:
// names are the same in every namespace, and remembered by package net.
func (w *world) linkLocal(from, to string) netip.Addr {
	w.t.Helper()
	var found netip.Addr
	must(w.t, w.Do(to, func() error {
		link, err := netlinksafe.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlinksafe.AddrList(link, netlink.FAMILY_V6)
		for _, a := range addrs {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && addr.IsLinkLocalUnicast() {
				found = addr
			}
		}
		return err
	}))
	if !found.IsValid() {
		w.t.Fatalf("%s has no link-local address", to)
	}
	return found.WithZone(w.zone(from))
}

// zone is the zone of a pod's link.
func (w *world) zone(name string) (zone string) {
	w.t.Helper()
	must(w.t, w.Do(name, func() error {
		link, err := netlinksafe.LinkByName("eth0")
		if err == nil {
			zone = strconv.Itoa(link.Attrs().Index)
		}
		return err
	}))
	return zone
}

// sendToAll sends ten datagrams to each address of all hosts on the link, port 53.
func (w *world) sendToAll(from string, node *lab.Node) {
	w.t.Helper()
	addrs := []netip.Addr{netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1"),
		netip.IPv6LinkLocalAllNodes().WithZone(w.zone(from))}
	for _, cidr := range node.PodCIDRs() {
		if addr := cidr.Addr(); addr.Is4() {
			// of a /24
			addrs = append(addrs,
				netip.MustParseAddr(strings.TrimSuffix(addr.String(), ".0")+".255"))
		}
	}
	for _, dst := range addrs {
		must(w.t, w.Do(from, func() error {
			network := "udp4"
			if dst.Is6() {
				network = "udp6"
			}
			conn, err := net.ListenUDP(network, nil)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			for range 10 {
				if _, err := conn.WriteToUDPAddrPort([]byte("hello\n"),
					netip.AddrPortFrom(dst, 53)); err != nil {
					return fmt.Errorf("sending to %s: %w", dst, err)
				}
			}
			return nil
		}))
	}
}

// linkScopeControl: with strangers allowed and without a policy, all of this arrives on a bridge.
func (w *world) linkScopeControl(node *lab.Node) {
	w.t.Helper()
	web, client := on(node, "shop/web"), on(node, "shop/client")
	before := w.datagrams(web)
	w.sendToAll(client, node)
	w.eventually("datagrams to everybody to arrive at "+web, func() bool {
		return w.datagrams(web) >= before+20
	})
	dst := netip.AddrPortFrom(w.linkLocal(client, web), 80)
	if r := w.connect(client, probe.TCP, dst); !r.OK {
		w.t.Errorf("%s -> %s %s: %s", client, web, dst, r)
	}
}
