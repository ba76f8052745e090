package security

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
)

// The rules that keep tunnel packets to nodes.
const (
	notAPeer    = "tunnel packets of others"
	podToTunnel = "a pod to a tunnel"
)

// TestTunnel: only a node gets a packet into the pod network by encapsulation.
func TestTunnel(t *testing.T) {
	t.Parallel()
	for name, underlay := range map[string]lab.Families{"over IPv4": lab.DualStack,
		"over IPv6": lab.IPv6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{Underlay: underlay})
			w.startGuarded()
			outer := 4
			if underlay == lab.IPv6 {
				outer = 6
			}
			w.wrapped(outer)
		})
	}
}

// wrapped sends packets that would pass as those of a pod that is admitted, in tunnel packets to
// both nodes.
func (w *world) wrapped(outer int) {
	w.t.Helper()
	services := w.services(outer)
	mac := map[string]net.HardwareAddr{}
	for _, node := range w.NodeNames() {
		w.must(w.Do(node, func() error {
			device, err := net.InterfaceByName(fmt.Sprintf("sluice.%d", tunnelVNI))
			if err == nil {
				mac[node] = device.HardwareAddr
			}
			return err
		}))
	}
	sinks := map[string]interface {
		Received() uint64
	}{"node1": w.sink(near.place(), sinkPort), "node2": w.sink(far.place(), sinkPort)}
	// inner is from a pod of the other node to the guarded pod of this one.
	inner := func(node string, family int) []byte {
		if node == "node1" {
			return datagram(w.at(other.place(), family, 4242), w.at(near.place(), family, sinkPort),
				[]byte("wrapped"))
		}
		return datagram(w.at(web.place(), family, 4242), w.at(far.place(), family, sinkPort),
			[]byte("wrapped"))
	}
	sendInner := func(from, node string, dst netip.AddrPort, inner func(string, int) []byte) {
		src := w.at(from, outer, 40000)
		for _, family := range families {
			w.send(from, repeated(datagram(src, dst, inTunnel(mac[node], inner(node, family))),
				forgeries)...)
		}
	}
	send := func(from, node string, dst netip.AddrPort) { sendInner(from, node, dst, inner) }
	for _, c := range []struct {
		from, node, on, comment string
		dst                     netip.AddrPort
	}{
		{lab.Outside, "node1", "node1", notAPeer, w.at("node1", outer, tunnelPort)},
		{lab.Outside, "node2", "node2", notAPeer, w.at("node2", outer, tunnelPort)},
		{evil.place(), "node1", "node1", podToTunnel, w.at("node1", outer, tunnelPort)},
		{evil.place(), "node2", "node1", podToTunnel, w.at("node2", outer, tunnelPort)},
		{evil.place(), "node1", "node1", podToTunnel, services["node1"]},
		{evil.place(), "node2", "node1", podToTunnel, services["node2"]},
	} {
		w.drops(c.on, c.comment, len(families)*forgeries, func() { send(c.from, c.node, c.dst) })
	}
	for node, sink := range sinks {
		if n := sink.Received(); n > 0 {
			w.t.Errorf("%d datagrams that others than nodes wrapped up arrived on %s", n, node)
		}
	}
	peers := map[string]string{"node1": "node2", "node2": "node1"}
	// No node takes its own pods' packets out of the tunnel.
	ofOwnPod := func(node string, family int) []byte { return inner(peers[node], family) }
	for node, peer := range peers {
		w.drops(node, notFromThere, len(families)*forgeries, func() {
			sendInner(peer, node, w.at(node, outer, tunnelPort), ofOwnPod)
		})
	}
	// The same from a node's address is what a node takes.
	for node, peer := range peers {
		send(peer, node, w.at(node, outer, tunnelPort))
		w.eventually("tunnel packets of "+peer+" to arrive", func() bool {
			return sinks[node].Received() >= uint64(len(families))
		})
	}
	w.servicesWork(outer, services)
}

// services has node1 lead addresses of a service network to the nodes' tunnels, as a Service with
// such endpoints does.
func (w *world) services(outer int) map[string]netip.AddrPort {
	w.t.Helper()
	network, family := "10.96.0.%d", "ip"
	if outer == 6 {
		network, family = "fd00:10:96::%d", "ip6"
	}
	w.nft("node1", "add", "table", "inet", "services")
	w.nft("node1", "add", "chain", "inet", "services", "in",
		"{ type nat hook prerouting priority dstnat; }")
	services := map[string]netip.AddrPort{}
	for i, node := range w.NodeNames() {
		services[node] = netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(network, i+1)), 53)
		for port, to := range map[uint16]uint16{53: tunnelPort, 54: tunnelPort + 1} {
			w.nft("node1", "add", "rule", "inet", "services", "in",
				fmt.Sprintf("%s daddr %s udp dport %d dnat %s to %s",
					family, services[node].Addr(), port, family, w.at(node, outer, to)))
		}
	}
	return services
}

// servicesWork shows that the pod reaches the nodes by way of these services where it isn't the
// tunnel that they lead to.
func (w *world) servicesWork(outer int, services map[string]netip.AddrPort) {
	w.t.Helper()
	for node, service := range services {
		sink := w.sink(node, tunnelPort+1)
		src := w.at(evil.place(), outer, 40001)
		w.send(evil.place(),
			datagram(src, netip.AddrPortFrom(service.Addr(), 54), []byte("control")))
		w.eventually("the pod to reach "+node+" through a service", func() bool {
			return sink.Received() > 0
		})
	}
}

func (w *world) nft(place string, args ...string) {
	w.t.Helper()
	_, err := w.Nft(w.t.Context(), place, args...)
	w.must(err)
}
