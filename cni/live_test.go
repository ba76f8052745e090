package cni

import (
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestConnections: real connections are listed with both ends, behind a
// translation as well, and with the mark of those that are cut.
func TestConnections(t *testing.T) {
	t.Parallel()
	netns := newNetNS(t)
	in(t, netns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		rules := exec.Command("nft", "-f", "-") //nolint:noctx // it ends by itself
		rules.Stdin = strings.NewReader(`table inet t {
			chain marked { type filter hook output priority 0; udp dport { 7, 8 } ct label set 127; udp dport 6 ct label set 126; }
			chain translated { type nat hook output priority -100; udp dport 80 dnat ip to 127.0.0.3:8; }
		}
		`)
		if out, err := rules.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
		var want []Connection
		for _, c := range []struct {
			to, behind string
			cut        bool
		}{
			{"127.0.0.1:9", "127.0.0.1:9", false}, {"127.0.0.1:6", "127.0.0.1:6", false}, {"127.0.0.1:7", "127.0.0.1:7", true},
			{"127.0.0.2:80", "127.0.0.3:8", true}, {"[::1]:7", "[::1]:7", true},
		} {
			conn, err := net.Dial("udp", c.to) //nolint:noctx // it doesn't wait
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.Write([]byte{0}); err != nil {
				return err
			}
			want = append(want, Connection{
				Protocol: udp, Source: netip.MustParseAddrPort(conn.LocalAddr().String()),
				Destination: netip.MustParseAddrPort(c.to), ReplySource: netip.MustParseAddrPort(c.behind), Cut: c.cut,
			})
		}
		got, err := Connections()
		if err != nil {
			return err
		}
		for _, c := range want {
			if !slices.Contains(got, c) {
				t.Errorf("%+v isn't in %+v", c, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d connections, want %d: %+v", len(got), len(want), got)
		}
		return nil
	})
}
