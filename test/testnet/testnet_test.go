package testnet

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addrsA       = addrs("10.0.0.2", "fd00::2")
	addrsB       = addrs("10.0.0.3", "fd00::3")
	addrsOutside = addrs("192.0.2.7", "2001:db8::7")
	addrsNode    = addrs("172.16.0.1", "fd16::1")
)

const (
	openPort   = 80
	closedPort = 81
)

// world is a node with addresses of its own, two pods and an outside host. All of them serve
// openPort in every protocol.
type world struct {
	node             *Node
	a, b, self, away *Host
}

func newWorld(t testing.TB) world {
	t.Helper()
	n := NewNode(t)
	for _, addr := range addrsNode {
		n.AddAddr(addr)
	}
	w := world{
		node: n,
		a:    n.Pod("pod-a", addrsA...),
		b:    n.Pod("pod-b", addrsB...),
		self: n.Host(),
		away: n.Outside("away", addrsOutside...),
	}
	for _, h := range []*Host{w.a, w.b, w.self, w.away} {
		serveAll(h)
	}
	return w
}

// serveAll has h serve openPort in every protocol.
func serveAll(h *Host) {
	h.ServeTCP(openPort)
	h.ServeUDP(openPort)
	h.ServeSCTP(openPort)
}

// pairs are the kinds of ways between two hosts.
func (w world) pairs() [][2]*Host {
	return [][2]*Host{{w.a, w.b}, {w.a, w.self}, {w.self, w.a}, {w.away, w.a}, {w.a, w.away},
		{w.a, w.a}}
}

// forwarded are those of pairs that the node forwards.
func (w world) forwarded() [][2]*Host {
	return [][2]*Host{{w.a, w.b}, {w.away, w.a}, {w.a, w.away}}
}

// eachWay calls f for every pair in every protocol and family.
func eachWay(pairs [][2]*Host, f func(from, to *Host, proto Protocol, dst netip.Addr)) {
	for _, pair := range pairs {
		for _, proto := range []Protocol{TCP, UDP, SCTP, ICMP} {
			for _, dst := range []netip.Addr{pair[1].Addr4(), pair[1].Addr6()} {
				f(pair[0], pair[1], proto, dst)
			}
		}
	}
}

// recorder is a test that keeps its failures to itself.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// wantFailure demands exactly one failure, which contains every part.
func (r *recorder) wantFailure(t *testing.T, parts ...string) {
	t.Helper()
	if len(r.failures) != 1 {
		t.Errorf("got failures %q, want one", r.failures)
		return
	}
	for _, part := range parts {
		if !strings.Contains(r.failures[0], part) {
			t.Errorf("got failure %q, want it to contain %q", r.failures[0], part)
		}
	}
}

func addrs(texts ...string) []netip.Addr {
	out := make([]netip.Addr, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParseAddr(text)
	}
	return out
}

func at(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }
