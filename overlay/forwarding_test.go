package overlay_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/test/stretch"
)

// A link of the node that doesn't forward is named, for as long as it doesn't, if packets for pods
// come in by it.
func TestLinksThatDontForward(t *testing.T) {
	t.Parallel()
	m := lone(t)
	m.Run(`ip link add eth1 up type veth peer name peer1
		ip link set peer1 up
		ip addr add 203.0.113.1/24 dev eth1
		ip route add default via 203.0.113.9
		ip link add eth2 up type veth peer name peer2
		ip link set peer2 up
		ip addr add 198.51.100.1/24 dev eth2`)
	m.start([]overlay.Node{node(1), node(2)}, dual(nil))
	m.awaitReady(1)
	named := func(want ...string) {
		t.Helper()
		m.await(2*time.Second, fmt.Sprintf("naming of %q", want), func() error {
			s := m.rec.Status()
			if !slices.Equal(s.NotForwarding, want) || !s.Ready {
				return fmt.Errorf("ready %t, %s, named %q", s.Ready, s.Reason, s.NotForwarding)
			}
			return nil
		})
	}
	named()
	m.sysctl("ipv4/conf/eth2/forwarding", "0") // nothing says that pods' packets come by it
	m.sysctl("ipv4/conf/eth0/forwarding", "0")
	named("eth0")
	m.sysctl("ipv4/conf/eth1/forwarding", "0")
	named("eth0", "eth1")
	for _, link := range []string{"eth0", "eth1"} {
		if got := m.readSysctl("ipv4/conf/" + link + "/forwarding"); got != "0" {
			t.Errorf("the administrator's %s was set to %s", link, got)
		}
	}
	m.sysctl("ipv4/conf/eth0/forwarding", "1")
	named("eth1")
	m.sysctl("ipv4/conf/eth1/forwarding", "1")
	named()
}

// What is said of such a link is true: a pod behind the node isn't reached by way of it, and is
// again afterwards. The tunnel, which is ours, has what it needs whatever new links get.
func TestForwardingOfSingleLinks(t *testing.T) {
	t.Parallel()
	for name, backend := range map[string]overlay.Backend{"vxlan": overlay.VXLAN,
		"host-gw": overlay.HostGW} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := overlay.Config{Network: net4, Backend: backend, VNI: 1, Port: 8472}
			u := newUnderlay(t)
			a, b := u.newMachine(1), u.newMachine(2)
			nodes := []overlay.Node{node(1), node(2)}
			far := b.podBehind(netip.MustParseAddr("10.244.2.77"))
			for _, m := range []*machine{a, b} {
				m.sysctl("ipv4/conf/default/forwarding", "0") // for links to come
				m.start(nodes, config)
			}
			a.awaitReady(1)
			b.awaitReady(1)
			connect := func() error {
				return a.NetNS.Do(func(ns.NetNS) error {
					dialer := net.Dialer{Timeout: stretch.By(time.Second),
						LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 244, 1, 2)}}
					conn, err := dialer.Dial("tcp", far.String())
					if err == nil {
						err = conn.Close()
					}
					return err
				})
			}
			a.await(patience, "way to the pod", connect)
			b.sysctl("ipv4/conf/eth0/forwarding", "0")
			err := connect()
			if backend == overlay.VXLAN && err != nil {
				t.Errorf("through the tunnel: %v", err)
			}
			if backend == overlay.HostGW && err == nil {
				t.Error("the link forwards, although it is named as one that doesn't")
			}
			b.sysctl("ipv4/conf/eth0/forwarding", "1")
			a.await(patience, "way to the pod again", connect)
		})
	}
}

// podBehind is a pod in a namespace of its own, which listens until the test ends. The node
// forwards to it, as on a real one.
func (m *machine) podBehind(addr netip.Addr) netip.AddrPort {
	m.t.Helper()
	pod := newSpace(m.t)
	m.sysctl("ipv4/ip_forward", "1")
	m.Run(fmt.Sprintf(`ip link add pod0 up type veth peer name eth0 netns /proc/%d/fd/%d
		ip addr add 169.254.1.1/32 dev pod0
		ip route add %s dev pod0`, os.Getpid(), pod.NetNS.Fd(), addr))
	pod.Run(fmt.Sprintf(`ip link set eth0 up
		ip addr add %s/32 dev eth0
		ip route add 169.254.1.1 dev eth0
		ip route add default via 169.254.1.1`, addr))
	var l net.Listener
	err := pod.NetNS.Do(func(ns.NetNS) (err error) {
		l, err = net.Listen("tcp",
			netip.AddrPortFrom(addr, 7).String()) //nolint:noctx // it doesn't wait
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return netip.AddrPortFrom(addr, 7)
}
