package bench

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/testnet"
)

// From the moment in which a node's agent hears of another Node, by backend, until a pod there
// answers. The Node object comes from the benchmark: what an API server takes to pass it on is not
// in it.
func BenchmarkNodeToRoute(b *testing.B) {
	rounds := 20
	if long {
		rounds = 200
	}
	for _, v := range []struct{ name, backend string }{{"vxlan", vxlan}, {"host-gw", hostGW},
		{"directrouting", directRouting}} {
		times := nodeToRoute(b, v.backend, rounds)
		report(b, v.name,
			map[string]float64{"ns-p50": quantile(times, 0.5), "ns-p99": quantile(times, 0.99)})
	}
}

// nodeToRoute has a node come and go, and returns how long each coming took, in nanoseconds.
func nodeToRoute(b *testing.B, backend string, rounds int) []float64 {
	b.Helper()
	c := newCable(b)
	w, p := c.pods(backend)
	there := newAgent(b, c[1], 1, backend)
	there.setNodes(nodeObject(0), nodeObject(1))
	there.attachTo(b, p[1], 1, 1)
	here := newAgent(b, c[0], 0, backend)
	here.setNodes(nodeObject(0))
	here.attachTo(b, p[0], 0, 0)
	p[1].ServeUDP(serverPort)
	pulse := newPulse(b, w)
	var times []float64
	for range rounds {
		pulse.await(b, false)
		start := time.Now()
		here.setNodes(nodeObject(1))
		pulse.await(b, true)
		times = append(times, float64(time.Since(start)))
		here.network.DeleteNode(nodeObject(1).Name)
		here.enforcer.Update(func(c *enforcer.Model) { c.DeleteNode(nodeObject(1).Name) })
	}
	return times
}

// attachTo starts the agent of node number i, which is to find so many peers, and attaches its pod.
func (a *agent) attachTo(b *testing.B, pod *testnet.Host, i, peers int) {
	b.Helper()
	a.enforcer.Update(func(c *enforcer.Model) {
		c.SetNamespace("bench", nil)
		c.SetPod(policy.PodFrom(podObject(i)))
	})
	a.start(b, peers)
	a.attach(b, podObject(i), pod)
}

// pulse asks a server every half millisecond.
type pulse struct{ conn *net.UDPConn }

const pulseEvery = 500 * time.Microsecond

func newPulse(b *testing.B, w way) pulse {
	b.Helper()
	conn := in(b, w.client, func() (*net.UDPConn, error) {
		return net.DialUDP("udp", nil,
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.to, serverPort)))
	})
	b.Cleanup(func() { _ = conn.Close() })
	return pulse{conn}
}

// await returns when the server answers, or does so no more.
func (p pulse) await(b *testing.B, answers bool) {
	b.Helper()
	deadline, buffer := time.Now().Add(patience), make([]byte, 1500)
	for silent := 0; time.Now().Before(deadline); {
		if _, err := p.conn.Write([]byte("?")); err != nil && !unreachable(err) {
			b.Fatal(err)
		}
		must(b, p.conn.SetReadDeadline(time.Now().Add(pulseEvery)))
		_, err := p.conn.Read(buffer)
		switch {
		case err == nil && answers:
			return
		case err == nil:
			silent = 0
		case !errors.Is(err, os.ErrDeadlineExceeded) && !unreachable(err):
			b.Fatal(err)
		default:
			const enough = 20 // in a row: none is on its way
			if silent++; silent >= enough && !answers {
				return
			}
		}
	}
	b.Fatalf("no change to an answer: %t, within %s", answers, patience)
}

// unreachable is what the kernel reports of earlier packets that had no way to go, or were refused.
func unreachable(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) ||
		errors.Is(err, syscall.ECONNREFUSED)
}
