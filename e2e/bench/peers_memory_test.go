package bench

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// BenchmarkPeersMemory is what agents need that start in a cluster of 1,000 nodes, 30,000 pods and
// 400 policies: memory, and CPU until they have nothing more to do. Sluice's has 100 pods on its
// node; the others, whose nodes are bare, do less. What flannel and kube-router do together is what
// Sluice does.
func BenchmarkPeersMemory(b *testing.B) {
	programs := peerAgents(b)
	s := newScale(b, population{nodes: 1000})
	s.populate()
	must(b, s.lab.Store(b.Context(), numbered(s.nodes, s.flannelNode)))
	s.restart()
	sluice := restedAgent(b, s.real.AgentPID())

	f := flannel{lab: s.lab, program: programs.Flannel}
	bare := newCable(b)
	node := bare[0]
	s.register("flannel", 0)
	_, d := f.start(b, node, "flannel", fmt.Sprintf(flannelNetwork, vxlan))
	within(b, time.Minute, "routes to all nodes", func() error {
		return errors.Join(d.running(), node.Do(func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
			if err == nil && len(routes) < s.nodes {
				err = fmt.Errorf("%d routes", len(routes))
			}
			return err
		}))
	})
	byFlannel := restedAgent(b, d.pid)

	s.register("kube-router", 1)
	d = startKubeRouter(b, s.lab, bare[1], "kube-router", programs.KubeRouter)
	within(b, time.Minute, "kube-router that has its lists", func() error {
		if !strings.Contains(d.said(), "Starting network policy controller full sync") {
			return errors.Join(d.running(), errors.New("it hasn't said so"))
		}
		return nil
	})
	byKubeRouter := restedAgent(b, d.pid)
	must(b, d.running())

	both := map[string]float64{}
	for unit := range sluice {
		both[unit] = byFlannel[unit] + byKubeRouter[unit]
	}
	for _, agent := range []struct {
		name    string
		figures map[string]float64
	}{{"sluice", sluice}, {"flannel", byFlannel}, {"kube-router", byKubeRouter},
		{"flannel-and-kube-router", both}} {
		agent.figures["of-sluice"] = agent.figures["MiB"] / sluice["MiB"]
		report(b, agent.name, agent.figures)
	}
}

// restedAgent is what a process has needed once it has come to rest.
func restedAgent(b *testing.B, pid int) map[string]float64 {
	b.Helper()
	awaitRest(b, pid, 2*time.Second)
	figures := memoryOf(b, pid)
	figures["CPU-s"] = cpuOf(b, pid).Seconds()
	return figures
}

// awaitRest returns when a process has hardly been on a CPU for so long.
func awaitRest(b *testing.B, pid int, long time.Duration) {
	b.Helper()
	const hardly = 20 * time.Millisecond
	before, since := -2*hardly, time.Now()
	poll(b, 50*time.Millisecond, 5*time.Minute, "rest", func() error {
		if now := cpuOf(b, pid); now > before+hardly {
			before, since = now, time.Now()
		}
		if time.Since(since) < long {
			return fmt.Errorf("CPU %s", before)
		}
		return nil
	})
}

// flannelNode is a node of the population as flannel leaves it behind.
func (s *scale) flannelNode(i int) client.Object {
	node := s.node(i)
	mac := net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}
	node.Annotations = map[string]string{
		"flannel.alpha.coreos.com/kube-subnet-manager": "true",
		"flannel.alpha.coreos.com/backend-type":        "vxlan",
		"flannel.alpha.coreos.com/backend-data":        fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, mac.String()),
		"flannel.alpha.coreos.com/public-ip":           node.Status.Addresses[1].Address,
	}
	return node
}

// register makes a node of a cable known to the API server.
func (s *scale) register(name string, i int) {
	s.b.Helper()
	node := nodeObject(i)
	node.ObjectMeta = s.meta("node", "", name, nil)
	node.Annotations = someAnnotation
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	must(s.b, s.lab.Store(s.b.Context(), slices.Values([]client.Object{node})))
}
