package overlay_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/overlay"
)

// TestForesee: what is foreseen is what a Reconciler then comes to, with the Nodes or by a guess,
// and foreseeing changes nothing.
func TestForesee(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.Run("ip route add default via 192.168.77.254")
	nodes := []overlay.Node{node(1), node(2)}
	foresee := func(nodes []overlay.Node) overlay.Foresight {
		t.Helper()
		f, err := overlay.Foresee(overlay.Options{NetNS: m.NetNS}, node(1).Name, nodes, dual(nil))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	look := func() string { return m.dump() + withoutIndex(m.Run("ip -o link")) }
	before := look()
	guessed, told := foresee(nil), foresee(nodes)
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if told.HasTunnel || len(told.Peers) != 1 {
		t.Errorf("foreseen: %+v", told)
	}
	m.start(nodes, dual(nil))
	m.awaitReady(1)
	s := m.rec.Status()
	type outcome struct {
		MTU           int
		Local, Device string
	}
	is := outcome{s.MTU, s.Local.String(), s.Device}
	for name, f := range map[string]overlay.Foresight{"guessed": guessed, "told": told} {
		got := outcome{f.MTU, f.Local.String(), f.Device}
		if diff := cmp.Diff(is, got); diff != "" {
			t.Errorf("%s, -is +foreseen:\n%s", name, diff)
		}
	}
	if f := foresee(nodes); !f.HasTunnel || f.LinkMTU != 1500 {
		t.Errorf("foreseen of a node with an agent: %+v", f)
	}
}

// TestForeseeCollisions: a device of others with the tunnel's port is in the way if, and only if,
// the kernel refuses the tunnel beside it.
func TestForeseeCollisions(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]bool{
		"id 1 dstport 8472":                                   true,
		"id 1 dstport 8472 udp6zerocsumrx":                    true,
		"id 7 dstport 8472":                                   true,
		"id 7 dstport 8472 udp6zerocsumrx gbp":                true,
		"dstport 8472 udp6zerocsumrx external":                true,
		"id 7 dstport 8472 udp6zerocsumrx":                    false,
		"id 1 dstport 4789":                                   false,
		"id 7 dstport 8472 udp6zerocsumrx nolearning udpcsum": false,
		"id 1 dstport 8472 local fd00::1":                     false,
		"id 7 dstport 8472 local fd00::1":                     false,
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			m := lone(t)
			local := " local 192.168.77.1"
			if strings.HasSuffix(options, "external") || strings.Contains(options, "local") {
				local = ""
			}
			m.Run("ip link add other type vxlan " + options + local + "\nip link set other up")
			nodes := []overlay.Node{node(1), node(2)}
			f, err := overlay.Foresee(overlay.Options{NetNS: m.NetNS}, node(1).Name, nodes,
				dual(nil))
			if err != nil {
				t.Fatal(err)
			}
			m.start(nodes, dual(nil))
			if (f.InTheWay != "") != want {
				t.Errorf("in the way: %q, want that there is one: %t", f.InTheWay, want)
			}
			if !want {
				m.awaitReady(1)
				return
			}
			m.await(patience, "refusal", func() error {
				s := m.rec.Status()
				if s.Ready || !strings.Contains(s.Reason, "link other has VNI") {
					return fmt.Errorf("ready %t, reason %q", s.Ready, s.Reason)
				}
				return nil
			})
		})
	}
}
