package overlay_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/overlay"
)

// with is node i, created at that second, with these addresses of its own: 4 and 6 for each family,
// in that order.
func with(i int, second int64, order string) overlay.Node {
	return changed(node(i), func(n *overlay.Node) {
		own := map[rune]netip.Addr{'4': n.Addresses[0], '6': n.Addresses[1]}
		n.Addresses, n.Created = nil, time.Unix(second, 0)
		for _, family := range order {
			n.Addresses = append(n.Addresses, own[family])
		}
	})
}

func TestFamilyOfTunnels(t *testing.T) {
	t.Parallel()
	annotated := changed(with(1, 1, "46"), func(n *overlay.Node) {
		n.UnderlayIP = netip.MustParseAddr("fd77::1")
	})
	nowhere := changed(with(3, 0, ""), func(n *overlay.Node) {
		n.Addresses = addrs("127.0.0.1", "fe80::1")
	})
	only6 := func(c *overlay.Config) { c.Underlay = overlay.IPv6 }
	for name, test := range map[string]struct {
		nodes   []overlay.Node
		config  func(*overlay.Config)
		want    []string // of each node: its tunnel's end, or what is wrong
		skipped string
	}{
		"all alike": {[]overlay.Node{with(1, 1, "64"), with(2, 2, "64")}, nil,
			[]string{"fd77::1", "fd77::2"}, ""},
		"the older one decides": {[]overlay.Node{with(1, 2, "46"), with(2, 1, "64")}, nil,
			[]string{"fd77::1", "fd77::2"}, ""},
		"by name, if they are of an age": {[]overlay.Node{with(1, 1, "46"), with(2, 1, "64")}, nil,
			[]string{"192.168.77.1", "192.168.77.2"}, ""},
		"its annotation counts first": {
			[]overlay.Node{annotated, with(2, 2, "46")}, nil, []string{"fd77::1", "fd77::2"}, ""},
		"configured": {[]overlay.Node{with(1, 1, "46"), with(2, 2, "46")},
			only6, []string{"fd77::1", "fd77::2"}, ""},
		"a newcomer of one family": {
			[]overlay.Node{with(1, 1, "46"), with(2, 2, "6")}, nil,
			[]string{"192.168.77.1", "node node2 has no address on the underlay (IPv4)"},
			"node2: it has no IPv4 address",
		},
		"the oldest one is the odd one out": {
			[]overlay.Node{with(1, 1, "4"), with(2, 2, "6"), with(3, 3, "6")}, nil,
			[]string{"node node1 has no address on the underlay (IPv6)", "fd77::2", "fd77::3"},
			"node1: it has no IPv6 address",
		},
		"nowhere to be found": {
			[]overlay.Node{with(1, 1, "64"), with(2, 2, "6"), nowhere}, nil,
			[]string{"fd77::1", "fd77::2", "node node3: its address fe80::1 is no node's"},
			"node3: its address fe80::1 is no node's",
		},
		"without a tunnel, by itself": {[]overlay.Node{with(1, 1, "46"), with(2, 2, "64")},
			func(c *overlay.Config) { c.Backend = overlay.HostGW },
			[]string{"192.168.77.1", "fd77::2"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, n := range test.nodes {
				plan, err := overlay.Desired(n.Name, test.nodes, dual(test.config), eth0(i+1))
				if err != nil {
					if !strings.Contains(err.Error(), test.want[i]) {
						t.Errorf("%s: got %v, want %s", n.Name, err, test.want[i])
					}
					continue
				}
				if plan.Local.String() != test.want[i] {
					t.Errorf("%s: got %s, want %s", n.Name, plan.Local, test.want[i])
				}
				got := skippedText(plan.Skipped)
				if !strings.Contains(got, test.skipped) || test.skipped == "" && got != "" {
					t.Errorf("%s skips %q, want %q", n.Name, got, test.skipped)
				}
			}
		})
	}
}

// Whatever addresses the nodes have, all tunnels are of one family, and a node that can't take part
// says so.
func TestAllTunnelsAreOfOneFamily(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var nodes []overlay.Node
		for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
			order := rapid.SampledFrom([]string{"4", "6", "46", "64", ""}).Draw(t, "addresses")
			n := with(i+1, rapid.Int64Range(0, 3).Draw(t, "created"), order)
			if rapid.Bool().Draw(t, "annotated") {
				n.UnderlayIP = rapid.SampledFrom([]netip.Addr{node(i + 1).Addresses[0],
					node(i + 1).Addresses[1]}).Draw(t, "annotation")
			}
			nodes = append(nodes, n)
		}
		locals := map[bool][]netip.Addr{}
		for i, n := range nodes {
			shuffled := slices.Clone(nodes)
			slices.Reverse(shuffled[rapid.IntRange(0, len(nodes)).Draw(t, "order"):])
			plan, err := overlay.Desired(n.Name, shuffled, dual(nil), eth0(i+1))
			if err != nil {
				if !strings.Contains(err.Error(), "has no address on the underlay") {
					t.Fatal(err)
				}
				continue
			}
			locals[plan.Local.Is4()] = append(locals[plan.Local.Is4()], plan.Local)
			for _, p := range plan.Peers {
				if p.Endpoint.Is4() != plan.Local.Is4() {
					t.Fatalf("%s is reached at %s from %s", p.Name, p.Endpoint, plan.Local)
				}
			}
		}
		if len(locals) > 1 {
			t.Fatalf("tunnels of both families: %v", locals)
		}
		if addresses := fmt.Sprint(nodes); len(locals) == 0 && strings.Contains(addresses, "77") {
			t.Fatalf("nobody has a tunnel among %s", addresses)
		}
	})
}

// Nodes that list their addresses in different orders reach each other.
func TestOrdersOfAddressesDiffer(t *testing.T) {
	t.Parallel()
	u := newUnderlay(t)
	nodes := []overlay.Node{with(1, 2, "46"), with(2, 1, "64"), with(3, 3, "46")}
	var machines []*machine
	for i := range nodes {
		m := u.newMachine(i + 1)
		m.serve()
		m.start(nodes, dual(nil))
		machines = append(machines, m)
	}
	for _, m := range machines {
		m.awaitReady(2)
		for _, peer := range machines {
			if m != peer {
				m.mustReach(peer, dual(nil))
			}
		}
	}
}
