package overlay_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var patience = stretch.By(time.Minute)

// space is a network namespace of a test's own.
type space struct {
	testnet.Space

	t *testing.T
}

func newSpace(t *testing.T) space {
	t.Helper()
	s := space{testnet.NewSpace(t), t}
	s.sysctl("ipv6/conf/all/accept_dad", "0")
	s.sysctl("ipv6/conf/default/accept_dad", "0")
	return s
}

func (s space) sysctl(key, value string) {
	s.t.Helper()
	s.Do(func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0) })
}

func (s space) readSysctl(key string) string {
	s.t.Helper()
	var value []byte
	s.Do(func() (err error) {
		value, err = os.ReadFile("/proc/sys/net/" + key)
		return err
	})
	return strings.TrimSpace(string(value))
}

// dump is what is there of ours, by the tools that people use; without indexes of links.
func (s space) dump() string {
	s.t.Helper()
	return strings.Join([]string{
		withoutIndex(s.Run("ip -d link show type vxlan")),
		onlyTunnels(withoutIndex(s.Run("ip -o addr show"))),
		s.Run("ip route show proto 84"),
		s.Run("ip -6 route show proto 84"),
		onlyTunnels(s.Run("ip neigh show nud permanent")),
		onlyTunnels(s.Run("bridge fdb show")),
	}, "\n")
}

// withoutIndex drops a link's index, which a new one hasn't in common with the old one.
func withoutIndex(dump string) string {
	var lines []string
	for line := range strings.SplitSeq(dump, "\n") {
		index, rest, found := strings.Cut(line, ": ")
		if found && strings.Trim(index, "0123456789") == "" {
			line = rest
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func onlyTunnels(dump string) string {
	var lines []string
	for line := range strings.SplitSeq(dump, "\n") {
		if strings.Contains(line, "sluice.") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines) // the kernel hashes them
	return strings.Join(lines, "\n")
}

// underlay is a switch in a namespace, on which nodes have the addresses that node() gives them.
type underlay struct{ space }

func newUnderlay(t *testing.T) underlay {
	t.Helper()
	u := underlay{newSpace(t)}
	u.Run("ip link add br0 up type bridge mcast_snooping 0 forward_delay 0")
	return u
}

// machine is a node of number i, with the overlay running.
type machine struct {
	space
	i   int
	rec *overlay.Reconciler
}

// newMachine makes a node's namespace, with eth0 on the switch.
func (u underlay) newMachine(i int) *machine {
	u.t.Helper()
	return u.newMachineOn("br0", i, eth0(i)[1].Prefixes)
}

func (u underlay) newMachineOn(bridge string, i int, addresses []netip.Prefix) *machine {
	u.t.Helper()
	m := &machine{space: newSpace(u.t), i: i}
	u.Run(
		fmt.Sprintf("ip link add port%d up master %s type veth peer name eth0 netns /proc/%d/fd/%d",
			i, bridge, os.Getpid(), m.NetNS.Fd()))
	m.Run("ip link set eth0 up")
	for _, p := range addresses {
		m.Run(fmt.Sprintf("ip addr add %s dev eth0", p))
	}
	for _, p := range node(i).PodCIDRs { // a pod, as far as this package is concerned
		m.Run(fmt.Sprintf("ip addr add %s/%d dev lo", pod(p), p.Addr().BitLen()))
	}
	return m
}

// pod is the address of a CIDR's pod.
func pod(p netip.Prefix) netip.Addr { return p.Addr().Next().Next() }

// lone is a node without anybody to talk to.
func lone(t *testing.T) *machine {
	t.Helper()
	return newUnderlay(t).newMachine(1)
}

// start runs a Reconciler until the test ends or stop is called.
func (m *machine) start(nodes []overlay.Node, c overlay.Config) (stop func()) {
	m.t.Helper()
	m.rec = overlay.New(overlay.Options{NetNS: m.NetNS, Tick: time.Hour})
	m.rec.Set(node(m.i).Name, nodes, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.rec.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			m.t.Errorf("Run: %v", err)
		}
	}
	m.t.Cleanup(stop)
	return stop
}

// awaitReady waits for the Reconciler to be content with at least so many peers.
func (m *machine) awaitReady(peers int) {
	m.t.Helper()
	m.await(patience, "being ready", func() error {
		if s := m.rec.Status(); !s.Ready || len(s.Peers) != peers {
			return fmt.Errorf("ready %t, %d peers, %s", s.Ready, len(s.Peers), s.Reason)
		}
		return nil
	})
}

// await polls until check has no error.
func (s space) await(limit time.Duration, what string, check func() error) {
	s.t.Helper()
	tick := time.NewTicker(stretch.By(10 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(limit); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no %s within %s: %v", what, limit, err)
		}
	}
}

func (s space) awaitDump(limit time.Duration, want string) {
	s.t.Helper()
	s.await(limit, "such state", func() error {
		if got := s.dump(); got != want {
			return fmt.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
		return nil
	})
}

// serve echoes TCP on the pod's addresses until the test ends.
func (m *machine) serve() {
	m.t.Helper()
	for _, p := range node(m.i).PodCIDRs {
		var l net.Listener
		m.await(patience, "address of the pod's",
			func() error { // the kernel takes its time with IPv6
				return m.NetNS.Do(func(ns.NetNS) (err error) {
					l, err = net.Listen("tcp",
						netip.AddrPortFrom(pod(p), 7).String()) //nolint:noctx // it doesn't wait
					return err
				})
			})
		var echoing sync.WaitGroup
		echoing.Go(func() { echo(m.t.Context(), l) })
		m.t.Cleanup(func() {
			l.Close()
			echoing.Wait()
		})
	}
}

// echo serves one client after the other until the listener is closed. The end of ctx ends a
// connection: a client whose packets get lost can't.
func echo(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		_, _ = io.Copy(conn, conn)
		stop()
		conn.Close()
	}
}

// reach sends some data from a pod to the one of another node and back.
func (m *machine) reach(from, to netip.Prefix, size int) error {
	return m.NetNS.Do(func(ns.NetNS) error {
		dialer := net.Dialer{Timeout: stretch.By(time.Second),
			LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(pod(from), 0))}
		conn, err := dialer.Dial("tcp", netip.AddrPortFrom(pod(to), 7).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(stretch.By(2 * time.Second))); err != nil {
			return err
		}
		data := bytes.Repeat([]byte("x"), size)
		go func() { _, _ = conn.Write(data) }()
		back := make([]byte, size)
		_, err = io.ReadFull(conn, back)
		return err
	})
}

func (m *machine) mustReach(peer *machine, c overlay.Config) {
	m.t.Helper()
	for f, from := range node(m.i).PodCIDRs {
		if f == 0 && !c.Network.IsValid() || f == 1 && !c.IPv6Network.IsValid() {
			continue
		}
		to := node(peer.i).PodCIDRs[f]
		m.await(patience, fmt.Sprintf("way from %s to %s", from, to), func() error {
			return m.reach(from, to, 100_000)
		})
	}
}

// tunnelled is how many packets have left through the tunnel.
func (m *machine) tunnelled() string {
	m.t.Helper()
	_, counters, _ := strings.Cut(m.Run("cat /proc/net/dev"), "sluice.")
	_, counters, _ = strings.Cut(counters, ":")
	const sent = 9 // the tenth column
	return strings.Fields(counters)[sent]
}
