package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/test/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// space is a network namespace of a test's own, with the links v0 and v1, and the tunnel vx0.
type space struct {
	testnet.Space
	*Kernel

	t *testing.T
}

func newSpace(t *testing.T) space {
	t.Helper()
	s := space{Space: testnet.NewSpace(t), t: t}
	s.Run(`ip link add v0 up type veth peer name v1
		ip link set v1 up
		ip addr add 10.0.0.1/24 dev v0
		ip link add vx0 up type vxlan id 5 dstport 4789 local 10.0.0.1`)
	s.do(func() (err error) { s.Kernel, err = Open(ProcSys); return err })
	t.Cleanup(s.Close)
	s.look()
	return s
}

// do is Do by the package's own way into a namespace.
func (s space) do(f func() error) {
	s.t.Helper()
	if err := In(s.NetNS, f); err != nil {
		s.t.Fatal(err)
	}
}

func (s space) look() {
	s.t.Helper()
	if err := s.Look(); err != nil {
		s.t.Fatal(err)
	}
}

const protocol netlink.RouteProtocol = 99

// state is all that is there of what the tests put.
func (s space) state(sysctls ...Sysctl) State {
	s.t.Helper()
	s.look()
	isTest := func(name string) bool { return name != "lo" }
	neighbours, err1 := s.Neighbours(isTest)
	forwards, err2 := s.Forwards(func(name string) bool { return name == "vx0" })
	addresses, err3 := s.Addresses()
	routes, err4 := s.Routes(func(r netlink.Route) bool { return r.Protocol == protocol })
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		s.t.Fatal(err)
	}
	all := slices.Concat(neighbours, forwards)
	for _, a := range addresses {
		address := s.AddressOf(a)
		if address.Link == "v1" && !address.Prefix.Addr().IsLinkLocalUnicast() {
			all = append(all, address)
		}
	}
	for _, r := range routes {
		all = append(all, s.RouteOf(r))
	}
	for _, want := range sysctls {
		all = append(all, s.Links()[want.Link].Settings([]Sysctl{want})...)
	}
	return all
}

// converge makes changes until the state is the wanted one.
func (s space) converge(want State, sysctls ...Sysctl) {
	s.t.Helper()
	s.do(func() error { return s.Apply(Diff(want, s.state(sysctls...), nil), nil) })
	if left := Diff(want, s.state(sysctls...), nil); len(left) > 0 {
		s.t.Errorf("%s is left to do, after: %v", Commands(left), s.state(sysctls...))
	}
}

// Each thing that is put is read back as it was written, comes back when somebody alters it, and
// goes when it is dropped. The commands show that what is tested can differ.
func TestItemsAreReadBack(t *testing.T) {
	t.Parallel()
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	mac := MAC{2, 0, 0, 0, 0, 7}
	for name, c := range map[string]struct {
		item  Item
		alter string
	}{
		"IPv4 address": {Address{Link: "v1", Prefix: prefix("10.1.0.1/24")},
			"ip addr del 10.1.0.1/24 dev v1"},
		"IPv6 address": {Address{Link: "v1", Prefix: prefix("fd01::1/64")},
			"ip addr change fd01::1/64 dev v1 valid_lft 100 preferred_lft 50"},
		"IPv4 neighbour": {Neighbour{Link: "v0", Addr: addr("10.0.0.7"), MAC: mac},
			"ip neigh replace 10.0.0.7 lladdr 02:00:00:00:00:08 dev v0 nud permanent"},
		"IPv6 neighbour": {Neighbour{Link: "v0", Addr: addr("fd01::7"), MAC: mac},
			"ip neigh del fd01::7 dev v0"},
		"forward": {Forward{Link: "vx0", MAC: mac, To: addr("10.0.0.9")},
			"bridge fdb replace 02:00:00:00:00:07 dev vx0 dst 10.0.0.8 self permanent"},
		"forward, by port": {Forward{Link: "vx0", MAC: mac, To: addr("10.0.0.9")},
			"bridge fdb replace 02:00:00:00:00:07 dev vx0 dst 10.0.0.9 port 77 self permanent"},
		"route on a link": {Route{To: prefix("10.2.0.1/32"), Link: "v0", Src: addr("10.0.0.1"),
			Protocol: protocol}, "ip route replace 10.2.0.1 dev v1 proto 99"},
		"IPv6 on a link": {Route{To: prefix("fd02::1/128"), Link: "v0", Metric: 1024,
			Protocol: protocol}, "ip route del fd02::1"},
		"route by gateway": {
			Route{To: prefix("10.2.0.0/24"), Via: addr("10.9.9.9"), Link: "v0", Onlink: true,
				Protocol: protocol}, "ip route replace 10.2.0.0/24 via 10.0.0.77 proto 99"},
		"IPv6 by gateway": {
			Route{To: prefix("fd02::/64"), Via: addr("fd02::"), Link: "v0", Onlink: true,
				Metric: 1024, Protocol: protocol}, "ip route replace fd02::/64 dev v1 proto 99"},
		"unreachable": {Route{To: prefix("10.2.0.0/16"), Metric: 1 << 30, Protocol: protocol},
			"ip route del unreachable 10.2.0.0/16"},
		"IPv6 unreachable": {Route{To: prefix("fd02::/48"), Metric: 1 << 30, Protocol: protocol},
			"ip route del unreachable fd02::/48"},
		"route with an MTU": {Route{To: prefix("10.2.0.1/32"), Link: "v0", Protocol: protocol},
			"ip route replace 10.2.0.1 dev v0 proto 99 scope link mtu 1000"},
		"IPv4 sysctl": {Sysctl{IPv4, "v0", "forwarding", 1},
			"sysctl -w net.ipv4.conf.v0.forwarding=0"},
		"route_localnet": {Sysctl{IPv4, "v0", "route_localnet", 1},
			"sysctl -w net.ipv4.conf.v0.route_localnet=0"},
		"IPv6 sysctl": {Sysctl{IPv6, "v0", "accept_ra", 0},
			"sysctl -w net.ipv6.conf.v0.accept_ra=2"},
		"accept_dad": {Sysctl{IPv6, "v0", "accept_dad", 0},
			"sysctl -w net.ipv6.conf.v0.accept_dad=1"},
		"addr_gen_mode": {Sysctl{IPv6, "v0", "addr_gen_mode", 1},
			"sysctl -w net.ipv6.conf.v0.addr_gen_mode=0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			var sysctls []Sysctl
			if setting, isSysctl := c.item.(Sysctl); isSysctl {
				sysctls = append(sysctls, setting)
			}
			desired := append(s.state(), c.item)
			s.converge(desired, sysctls...)
			if len(sysctls) == 0 {
				for range 2 { // what isn't there any more can be dropped
					if err := c.item.Drop(s.Kernel); err != nil && !IsGone(err) {
						t.Errorf("dropping it: %v", err)
					}
				}
				if left := Diff(desired, s.state(), nil); len(left) != 1 {
					t.Errorf("after dropping it, this is to do: %v", left)
				}
				s.converge(desired, sysctls...)
			}
			s.Run(c.alter)
			if left := Diff(desired, s.state(sysctls...), nil); len(left) == 0 {
				t.Errorf("%s: nothing differs", c.alter)
			}
			s.converge(desired, sysctls...)
		})
	}
}

// A link that isn't there is an error of what is put on it, and none of what is dropped.
func TestWithoutLink(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for _, item := range []Item{
		Address{Link: "x", Prefix: netip.MustParsePrefix("10.0.0.1/24")},
		Neighbour{Link: "x", Addr: netip.MustParseAddr("10.0.0.7")},
		Forward{Link: "x", To: netip.MustParseAddr("10.0.0.7")},
		Route{To: netip.MustParsePrefix("10.2.0.1/32"), Link: "x"},
	} {
		if err := s.Apply([]Op{{Next: item}}, nil); !errors.Is(err, ErrNoLink) {
			t.Errorf("%s: got %v", item.Add(), err)
		}
		if err := s.Apply([]Op{{Now: []Item{item}}}, nil); err != nil {
			t.Errorf("%s: got %v", item.Remove(), err)
		}
	}
	if _, err := s.LookAt("x"); !errors.Is(err, ErrNoLink) {
		t.Errorf("looking at it: got %v", err)
	}
}

func TestFound(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.Run("ip link set v0 alias dev/pod-a mtu 1400 arp off address 02:00:00:00:00:01")
	s.look()
	want := Found{
		Name: "v0", Type: "veth", MAC: MAC{2, 0, 0, 0, 0, 1}, MTU: 1400, Up: true, Carrier: true,
		NoARP: true, Alias: "dev/pod-a",
	}
	for what, got := range map[string]Found{"Look": s.Links()["v0"],
		"LookAt": must(s.LookAt("v0"))} {
		if index, err := s.Index("v0"); err != nil || index != got.Index || s.Name(index) != "v0" {
			t.Errorf("%s: index %d, %v", what, index, err)
		}
		if !got.HasFamily(IPv4) || !got.HasFamily(IPv6) {
			t.Errorf("%s: it lacks a family", what)
		}
		got.Index, got.Conf4, got.Conf6, got.addrGenMode = 0, nil, nil, 0
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	if !s.Links()["lo"].Loopback || s.Links()["vx0"].Type != "vxlan" {
		t.Errorf("got %+v and %+v", s.Links()["lo"], s.Links()["vx0"])
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
