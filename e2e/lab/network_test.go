package lab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/lab/capture"
	"github.com/sluice-net/sluice/e2e/lab/wait"
	"github.com/sluice-net/sluice/test/probe"
)

// crossing connects between pods on different nodes, and returns what of the client's packets was
// on its node's cable. The server must see the client's own address.
func crossing(t *testing.T, l *Lab, client Pod, to netip.AddrPort) []capture.Packet {
	t.Helper()
	capture, err := l.Capture(client.Node, uplinkName, func(p capture.Packet) bool {
		return p.Outgoing && p.Innermost().Dst == to
	})
	must(t, err)
	r := l.Reach(t.Context(), client.Name, probe.TCP, to)
	packets, err := capture.Stop()
	must(t, err)
	source := sameFamily(client.Addresses, to.Addr())
	if !r.OK || !strings.Contains(r.Reply, source.String()) {
		t.Errorf("%s -> %s: %s, want an answer to %s", client.Name, to, r, source)
	}
	if len(packets) < 3 {
		t.Errorf("%s -> %s: %d packets were captured, want those of a connection", client.Name, to,
			len(packets))
	}
	return packets
}

// wantTunnelled demands of all packets that they are in a tunnel between these nodes, or that none
// is.
func wantTunnelled(t *testing.T, packets []capture.Packet, want bool, from, to *Node) {
	t.Helper()
	for _, p := range packets {
		if p.VXLAN != nil != want {
			t.Errorf("%s: in a tunnel: %v, want %v", p, p.VXLAN != nil, want)
		}
		if p.VXLAN == nil {
			continue
		}
		src, dst := sameFamily(from.Addrs(), p.Src.Addr()), sameFamily(to.Addrs(), p.Dst.Addr())
		if p.VXLAN.VNI != 1 || p.Src.Addr() != src || p.Dst.Addr() != dst || p.Checksum != 0 {
			t.Errorf("%s (checksum %#x): want VNI 1 from %s to %s without a checksum", p,
				p.Checksum, src, dst)
		}
	}
}

func TestBackends(t *testing.T) {
	t.Parallel()
	for _, options := range []Options{
		{Backend: VXLAN, Families: DualStack},
		{Backend: VXLAN, Families: DualStack, Underlay: IPv6, RPFilter: RPFilterStrict},
		{Backend: VXLAN, Families: IPv4, Underlay: IPv6, Subnets: 2},
		{Backend: VXLAN, Families: IPv6, Underlay: IPv4, Subnets: 2},
		{Backend: HostGW, Families: DualStack, RPFilter: RPFilterStrict},
		{Backend: HostGW, Families: IPv4},
		{Backend: HostGW, Families: IPv6},
		{Backend: DirectRouting, Families: DualStack, Underlay: IPv4, Subnets: 2, Nodes: 3,
			RPFilter: RPFilterLoose},
		{Backend: DirectRouting, Families: DualStack, Subnets: 2, Nodes: 3,
			RPFilter: RPFilterStrict},
	} {
		options.Name = testName(fmt.Sprintf("%.1s%s%s%d", options.Backend, options.Families,
			options.Underlay, options.Subnets))
		t.Run(options.Name, func(t *testing.T) {
			t.Parallel()
			l := newTestLab(t, options)
			var manifests string
			for _, node := range l.NodeNames() {
				manifests += podManifest("default", "on-"+node, node, nil, "80")
			}
			must(t, l.Apply(t.Context(), manifests))
			must(t, l.WaitReady(within(t, 20*time.Second)))
			client, err := l.Pod("default/on-node1")
			must(t, err)
			for _, node := range l.Nodes()[1:] {
				server, err := l.Pod("default/on-" + node.Name())
				must(t, err)
				for _, addr := range server.Addresses {
					plain := l.plan.subnetOf(node.number) == 0 &&
						sameFamily(node.Addrs(), addr).IsValid()
					tunnelled := options.Backend == VXLAN ||
						options.Backend == DirectRouting && !plain
					wantTunnelled(t, crossing(t, l, client, at(addr, 80)), tunnelled,
						l.Node("node1"), node)
					if !sameFamily(node.Addrs(), addr).IsValid() {
						continue
					}
					if r := l.Reach(t.Context(), Outside, probe.TCP, at(addr, 80)); !r.OK {
						t.Errorf("from outside to %s: %s", addr, r)
					}
					outside := sameFamily(l.OutsideAddrs(), addr)
					if r := l.Reach(t.Context(), server.Name, probe.TCP,
						at(outside, outsidePort)); !r.OK {
						t.Errorf("from %s to outside: %s", server.Name, r)
					}
				}
			}
		})
	}
}

// The underlay of a cloud drops what comes from pods, so that only the tunnel works on it.
func TestDropPodSources(t *testing.T) {
	t.Parallel()
	l := newTestLab(t,
		Options{Name: testName("drop"), Families: IPv4, DropPodSources: true, MTU: 9000})
	must(t,
		l.Apply(t.Context(), podManifest("default", "a", "node1", nil, "80")+
			podManifest("default", "b", "node2", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second)))
	client, err := l.Pod("default/a")
	must(t, err)
	server, err := l.Pod("default/b")
	must(t, err)
	crossing(t, l, client, at(server.Addr4(), 80))
	must(t, l.Do("node1", func() error {
		uplink, err := net.InterfaceByName(uplinkName)
		if err == nil && uplink.MTU != 9000 {
			t.Errorf("the underlay's MTU is %d, want 9000", uplink.MTU)
		}
		return err
	}))

	must(t, l.EditNetConf(func(conf map[string]any) {
		conf["Backend"].(map[string]any)["DirectRouting"] = true
	}))
	must(t, wait.Until(t.Context(), 20*time.Second, "plain packets, and the switch to drop them",
		func() (bool, error) {
			result := l.Connect(t.Context(), client.Name, probe.TCP, at(server.Addr4(), 80),
				probe.WithTimeout(probeTimeout))
			return Cell{Result: result}.Denied(), nil
		}))
	must(t, l.EditNetConf(func(conf map[string]any) {
		delete(conf["Backend"].(map[string]any), "DirectRouting")
	}))
	crossing(t, l, client, at(server.Addr4(), 80))
}

func TestHostPort(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("hostport"), Nodes: 1})
	web := strings.Replace(podManifest("default", "web", "node1", nil, "80"), "containerPort: 80,",
		"containerPort: 80, hostPort: 8080,", 1)
	must(t, l.Apply(t.Context(), web+podManifest("default", "none", "node1", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second)))
	for _, addr := range l.NodeAddrs("node1") {
		if r := l.Reach(t.Context(), Outside, probe.TCP, at(addr, 8080)); !r.OK ||
			!strings.HasPrefix(r.Reply, "default/web ") {
			t.Errorf("port 8080 of %s: %s", addr, r)
		}
		if r := l.Connect(t.Context(), Outside, probe.TCP, at(addr, 80)); r.OK {
			t.Errorf("port 80 of %s, that nobody has: %s", addr, r)
		}
	}
}
