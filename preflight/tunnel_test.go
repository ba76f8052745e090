package preflight

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// TestPortInUse: a program's socket at the tunnel's port is found, and its end, where the kernel
// refuses the tunnel beside it: in the family of the node's address alone.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		local, family string // of the tunnel; of the program's socket
		refused       bool
	}{
		{"192.0.2.1", "udp4", true}, {"192.0.2.1", "udp", true}, {"192.0.2.1", "udp6", false},
		{"fd00::1", "udp6", true}, {"fd00::1", "udp", true}, {"fd00::1", "udp4", false},
	} {
		t.Run(c.local+" "+c.family, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			want, says := Pass, "are free"
			if strings.Contains(c.local, ":") {
				m.onIPv6()
			}
			if c.refused {
				want, says = Fail, "UDP port 8472 is in use"
			}
			var socket net.PacketConn
			m.Do(func() (err error) {
				socket, err = new(net.ListenConfig).ListenPacket(t.Context(), c.family, ":8472")
				return err
			})
			m.says(t, "tunnel", want, says)
			m.Run("ip link add vx type vxlan id 1 dstport 8472 local " + c.local)
			if said := m.setUp("vx"); strings.Contains(said, "in use") != c.refused {
				t.Errorf("the kernel says %q", said)
			}
			m.Run("ip link del vx")
			if err := socket.Close(); err != nil {
				t.Fatal(err)
			}
			m.says(t, "tunnel", Pass, "are free")
		})
	}
}

// setUp sets a link up, and returns what is said if that is refused.
func (m *machine) setUp(link string) (said string) {
	m.Do(func() error {
		out, err := exec.Command("ip", "link", "set", link, "up").CombinedOutput()
		if (err == nil) != (len(out) == 0) {
			return fmt.Errorf("%w: %s", err, out)
		}
		said = string(out)
		return nil
	})
	return said
}

// onIPv6 is a node of IPv6 alone.
func (m *machine) onIPv6() {
	m.Config.Network, m.Config.IPv6Network = netip.Prefix{}, netip.MustParsePrefix("fd10::/48")
	m.Run(`ip addr del 192.0.2.1/24 dev eth0
		ip addr add fd00::1/64 dev eth0 nodad
		ip route add default via fd00::9`)
}
