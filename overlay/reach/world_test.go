package reach

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/test/needroot"
	"github.com/sluice-net/sluice/test/stretch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var patience = stretch.By(20 * time.Second)

var (
	dualStack = overlay.Config{
		Network:     netip.MustParsePrefix("10.244.0.0/16"),
		IPv6Network: netip.MustParsePrefix("fd00:10:244::/48"),
		Backend:     overlay.VXLAN, VNI: 1, Port: 8472,
	}
	onlyIPv6 = overlay.Config{IPv6Network: dualStack.IPv6Network, Backend: overlay.VXLAN, VNI: 1,
		Port: 8472}
)

// machine is a node with the overlay running.
type machine struct {
	t     *testing.T
	netns ns.NetNS
	node  overlay.Node
}

// newMachines makes nodes on one switch, with tunnels of a family between them.
func newMachines(t *testing.T, n int, c overlay.Config, underlay overlay.Family) (out []*machine) {
	t.Helper()
	needroot.Skip(t)
	c.Underlay = underlay
	u := newMachine(t, 0)
	u.runf("ip link add br0 up type bridge mcast_snooping 0 forward_delay 0")
	var nodes []overlay.Node
	for i := 1; i <= n; i++ {
		m := newMachine(t, i)
		u.runf("ip link add port%d up master br0 type veth peer name eth0 netns /proc/%d/fd/%d", i,
			os.Getpid(), m.netns.Fd())
		m.runf("ip link set eth0 up")
		m.runf("ip addr add %s/24 dev eth0", m.node.Addresses[0])
		m.runf("ip addr add %s/64 dev eth0 nodad", m.node.Addresses[1])
		nodes = append(nodes, m.node)
		out = append(out, m)
	}
	for _, m := range out {
		m.connect(nodes, c)
	}
	return out
}

func newMachine(t *testing.T, i int) *machine {
	t.Helper()
	netns, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	b := byte(i)
	m := &machine{t: t, netns: netns, node: overlay.Node{
		Name: fmt.Sprintf("node%d", i),
		PodCIDRs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, b, 0}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", i)),
		},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 0, b}),
			netip.MustParseAddr(fmt.Sprintf("fd00:192:168::%d", i))},
	}}
	m.runf("ip link set lo up")
	return m
}

// connect keeps the node's overlay until the test ends, and waits for it.
func (m *machine) connect(nodes []overlay.Node, c overlay.Config) {
	m.t.Helper()
	ready := make(chan struct{})
	rec := overlay.New(overlay.Options{NetNS: m.netns, Tick: time.Hour,
		OnStatus: func(s overlay.Status) {
			if s.Ready && len(s.Peers) == len(nodes)-1 {
				select {
				case <-ready:
				default:
					close(ready)
				}
			}
		}})
	rec.Set(m.node.Name, nodes, c)
	m.background(rec.Run)
	select {
	case <-ready:
	case <-time.After(patience):
		m.t.Fatalf("%s isn't connected: %+v", m.node.Name, rec.Status())
	}
}

// background runs something until the test ends, which it has to heed.
func (m *machine) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	m.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Errorf("%s: %v", m.node.Name, err)
		}
	})
}

// runf runs a command in the node's namespace.
func (m *machine) runf(format string, args ...any) {
	m.t.Helper()
	m.runWithf("", format, args...)
}

func (m *machine) runWithf(stdin, format string, args ...any) {
	m.t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	err := m.netns.Do(func(ns.NetNS) error {
		cmd := exec.Command(words[0], words[1:]...) //nolint:noctx // it ends by itself
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", cmd, err, out)
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) nft(ruleset string) {
	m.t.Helper()
	m.runWithf(strings.NewReplacer("{ ", "{\n", "; ", "\n", "}", "\n}\n").Replace(ruleset),
		"nft -f -")
}

func (m *machine) sysctl(key, value string) {
	m.t.Helper()
	err := m.netns.Do(func(ns.NetNS) error {
		return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// peer is the node as others ask it.
func (m *machine) peer(c overlay.Config) Peer {
	addr := m.node.PodCIDRs[0].Addr()
	if !c.Network.IsValid() {
		addr = m.node.PodCIDRs[1].Addr()
	}
	return Peer{Name: m.node.Name, MAC: overlay.TunnelMAC(m.node.Name), Addr: addr}
}

// asks says whether a peer answers one of some questions.
func (m *machine) asks(p Peer, within time.Duration) bool {
	m.t.Helper()
	answers := make(chan heard, 10)
	var s *sockets
	err := m.netns.Do(func(ns.NetNS) error {
		tunnel, err := netlink.LinkByName("sluice.1")
		if err == nil {
			s, err = openSockets(tunnel.Attrs().Index, tunnel.Attrs().Name,
				link.MAC(tunnel.Attrs().HardwareAddr), answers)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	defer s.close()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for late := time.After(within); ; {
		if err := s.ask(p); err != nil {
			m.t.Fatalf("%s: asking %s: %v", m.node.Name, p.Name, err)
		}
		select {
		case h := <-answers:
			a := h.Answer
			want := (Answer{Addr: p.Addr, MAC: p.MAC})
			if a != want && (!a.Addr.Is6() || a.Addr != p.Addr) {
				m.t.Fatalf("%s asked %v and heard %v", m.node.Name, want, a)
			}
			return true
		case <-again.C:
		case <-late:
			return false
		}
	}
}

func (m *machine) mustHear(p Peer, when string) {
	m.t.Helper()
	if !m.asks(p, patience) {
		m.t.Errorf("%s: %s doesn't answer %s", when, p.Name, m.node.Name)
	}
}

func (m *machine) mustNotHear(p Peer, when string) {
	m.t.Helper()
	if m.asks(p, 400*time.Millisecond) {
		m.t.Errorf("%s: %s answers %s", when, p.Name, m.node.Name)
	}
}
