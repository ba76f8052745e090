package link

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What only changes is there at each moment: the kernel never announces that it was removed.
func TestReplacedWithoutGap(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	route := func(to, via, dev string, metric int) Item {
		return Route{To: netip.MustParsePrefix(to), Via: addr(via), Link: dev, Onlink: true,
			Metric: metric, Protocol: protocol}
	}
	neighbour := func(a string, last byte) Item {
		return Neighbour{Link: "v0", Addr: addr(a), MAC: MAC{2, 0, 0, 0, 0, last}}
	}
	forward := func(to string) Item {
		return Forward{Link: "vx0", MAC: MAC{2, 0, 0, 0, 0, 7}, To: addr(to)}
	}
	for name, c := range map[string]struct{ one, other Item }{
		"IPv4 route": {route("10.2.0.0/24", "10.2.0.0", "vx0", 0),
			route("10.2.0.0/24", "10.0.0.7", "v0", 0)},
		"IPv6 route": {route("fd02::/64", "fd02::", "vx0", 1024),
			route("fd02::/64", "fd01::7", "v0", 1024)},
		"IPv4 neighbour": {neighbour("10.0.0.7", 1), neighbour("10.0.0.7", 2)},
		"IPv6 neighbour": {neighbour("fd01::7", 1), neighbour("fd01::7", 2)},
		"forward":        {forward("10.0.0.8"), forward("10.0.0.9")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			others := s.state()
			s.converge(append(slices.Clone(others), c.one))
			removals := s.removals()
			s.converge(append(slices.Clone(others), c.other))
			s.converge(append(slices.Clone(others), c.one))
			if removed := removals(); slices.ContainsFunc(removed, isAbout(c.one)) {
				t.Errorf("%s was missing for a moment: the kernel removed %+v", c.one.Key(),
					removed)
			}
			s.converge(others)
			if removed := removals(); !slices.ContainsFunc(removed, isAbout(c.one)) { // the control
				t.Errorf("%s was removed, but only this was announced: %+v", c.one.Key(), removed)
			}
		})
	}
}

// isAbout says whether a notice may be about an item: one of a neighbour doesn't say of which.
func isAbout(item Item) func(Notice) bool {
	return func(n Notice) bool {
		if route, isRoute := item.(Route); isRoute {
			return n.Type == unix.RTM_DELROUTE && n.To == route.To
		}
		return n.Type == unix.RTM_DELNEIGH
	}
}

// removals begins to listen. The function returns what the kernel removed since then, or since the
// function was last called.
func (s space) removals() func() []Notice {
	s.t.Helper()
	var socket *nl.NetlinkSocket
	s.do(func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
		return err
	})
	s.t.Cleanup(socket.Close)
	last := netip.MustParsePrefix("10.254.0.0/16")
	return func() (removed []Notice) {
		s.t.Helper()
		s.Run("ip route add " + last.String() + " dev v0\nip route del " + last.String())
		for {
			messages, _, err := socket.Receive()
			if err != nil {
				s.t.Fatal(err)
			}
			for _, m := range messages {
				n, known := parseNotice(m)
				if n.Type == unix.RTM_DELROUTE && n.To == last {
					return removed
				}
				if known && (n.Type == unix.RTM_DELROUTE || n.Type == unix.RTM_DELNEIGH) {
					removed = append(removed, n)
				}
			}
		}
	}
}
