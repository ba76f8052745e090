package lab

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/wait"
	"github.com/sluice-net/sluice/test/probe"
)

// routesTo counts the routes of a place to prefixes in a network.
func routesTo(t *testing.T, l *Lab, place string, network netip.Prefix) (count int) {
	t.Helper()
	must(t, l.Do(place, func() error {
		routes, err := netlinksafe.RouteList(nil, netlink.FAMILY_ALL)
		for _, route := range routes {
			if route.Dst == nil {
				continue
			}
			to, ok := netip.AddrFromSlice(route.Dst.IP)
			if ok && network.Contains(to) && route.Gw != nil {
				count++
			}
		}
		return err
	}))
	return count
}

func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("nodes"), Nodes: 1, Families: IPv4})
	must(t,
		l.Apply(t.Context(), podManifest("default", "a", "node1", nil, "80")+
			podManifest("default", "b", "node2", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second), "default/a"))
	a, err := l.Pod("default/a")
	must(t, err)

	node2, err := l.AddNode(within(t, time.Minute))
	must(t, err)
	must(t, l.WaitReady(within(t, 20*time.Second), "default/b"))
	b, err := l.Pod("default/b")
	must(t, err)
	wantTunnelled(t, crossing(t, l, b, at(a.Addr4(), 80)), true, node2, l.Node("node1"))
	if view, err := OpenLab(l.Name()); err != nil ||
		strings.Join(view.NodeNames(), " ") != "node1 node2" {
		t.Errorf("another process sees %v (%v)", view.NodeNames(), err)
	}

	ghosts, err := l.CreateNodeObjects(within(t, 30*time.Second), 50)
	must(t, err)
	want := func(what string, routes int) {
		t.Helper()
		must(t, wait.Until(t.Context(), 20*time.Second, what, func() (bool, error) {
			return routesTo(t, l, "node1", podNetwork4) == routes, nil
		}))
	}
	want("routes to nodes that are objects only", 51)
	must(t, l.DeleteNodeObjects(within(t, 30*time.Second), ghosts...))
	want("these routes to go", 1)

	address := netip.MustParseAddr("192.168.0.77")
	must(t, node2.SetAddress(t.Context(), address))
	if got := l.NodeAddrs("node2"); len(got) != 1 || got[0] != address {
		t.Errorf("node2 has %v, want %s", got, address)
	}
	wantTunnelled(t, crossing(t, l, b, at(a.Addr4(), 80)), true, node2, l.Node("node1"))
	if r := l.Reach(t.Context(), Outside, probe.TCP, at(b.Addr4(), 80)); !r.OK {
		t.Errorf("from outside, by the new address: %s", r)
	}

	must(t, l.RemoveNode(within(t, 30*time.Second), "node2"))
	want("the route to the removed node to go", 0)
	must(t, l.WaitGone(within(t, 10*time.Second), "default/b"))
	if len(l.Nodes()) != 1 || l.Node("node2") != nil || l.NodeAddrs("node2") != nil {
		t.Errorf("nodes are %v", l.NodeNames())
	}
	for _, left := range remains(t, l.Name()) {
		if strings.Contains(left, ".node2") || strings.Contains(left, "/node2/") {
			t.Errorf("left of node2: %s", left)
		}
	}
	node3, err := l.AddNode(within(t, time.Minute))
	must(t, err)
	if node3.Name() != "node3" {
		t.Errorf("the next node is %s", node3.Name())
	}
}

// nodeReady says whether the API's object of a node does.
func nodeReady(t *testing.T, l *Lab, name string) bool {
	t.Helper()
	node := &corev1.Node{}
	must(t, l.Client().Get(t.Context(), client.ObjectKey{Name: name}, node))
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func TestPodCIDRsChange(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("cidrs")})
	node := l.Node("node2")
	must(t, l.Apply(t.Context(), podManifest("default", "a", "node1", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second)))
	a, err := l.Pod("default/a")
	must(t, err)
	must(t, node.SetPodCIDRs(t.Context()))
	node1Routes := func(network string) int {
		return routesTo(t, l, "node1", netip.MustParsePrefix(network))
	}
	must(t, wait.Until(t.Context(), 20*time.Second, "routes to the node without pod CIDRs to go",
		func() (bool, error) {
			return node1Routes("10.244.2.0/24")+node1Routes("fd00:10:244:2::/64") == 0, nil
		}))
	must(t, node.SetPodCIDRs(t.Context(), netip.MustParsePrefix("10.244.99.0/24"),
		netip.MustParsePrefix("fd00:10:244:99::/64")))
	must(t, l.Apply(t.Context(), podManifest("default", "b", "node2", nil, "80")))
	must(t, l.WaitReady(within(t, 30*time.Second), "default/b"))
	b, err := l.Pod("default/b")
	must(t, err)
	for _, addr := range b.Addresses {
		if !node.PodCIDRs()[0].Contains(addr) && !node.PodCIDRs()[1].Contains(addr) {
			t.Errorf("the pod has %s, want an address of %v", addr, node.PodCIDRs())
		}
		wantTunnelled(t, crossing(t, l, a, at(addr, 80)), true, l.Node("node1"), node)
		if r := l.Reach(t.Context(), Outside, probe.TCP, at(addr, 80)); !r.OK {
			t.Errorf("from outside to %s: %s", addr, r)
		}
	}
	must(t, wait.Until(t.Context(), 20*time.Second, "the node made anew to be ready",
		func() (bool, error) {
			return nodeReady(t, l, "node2"), nil
		}))
}

func TestReboot(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("reboot"), Subnets: 2})
	must(t,
		l.Apply(t.Context(), podManifest("default", "a", "node1", nil, "80")+
			podManifest("default", "b", "node2", nil, "80")+
			strings.Replace(podManifest("default", "host", "node2", nil, "7000"), "spec:\n",
				"spec:\n  hostNetwork: true\n", 1)))
	must(t, l.WaitReady(within(t, 20*time.Second)))
	a, err := l.Pod("default/a")
	must(t, err)
	node := l.Node("node2")
	uplinkMAC := func() (mac string) {
		must(t, node.Do(func() error {
			link, err := netlinksafe.LinkByName(uplinkName)
			mac = link.Attrs().HardwareAddr.String()
			return err
		}))
		return mac
	}
	mac := uplinkMAC()
	must(t, os.WriteFile(node.stateDir()+"/stays-not", nil, 0o600))
	process := node.AgentPID()
	_, err = node.Nft(t.Context(), "add", "table", "inet", "forgotten")
	must(t, err)

	must(t, node.Reboot())
	must(t, node.WaitReady(within(t, time.Minute)))
	if after := uplinkMAC(); after != mac {
		t.Errorf("the MAC is %s, it was %s", after, mac)
	}
	if tables, err := node.Nft(t.Context(), "list", "tables"); err != nil ||
		strings.Contains(tables, "forgotten") || !strings.Contains(tables, "sluice") {
		t.Errorf("tables are %q (%v)", tables, err)
	}
	if _, err := os.Stat(node.stateDir() + "/stays-not"); err == nil {
		t.Error("a file on tmpfs is still there")
	}
	if node.AgentPID() == process || node.AgentPID() == 0 {
		t.Errorf("the agent's process is %d, it was %d", node.AgentPID(), process)
	}
	must(t, wait.Until(t.Context(), 30*time.Second, "the pods to run again", func() (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		b, err := l.Pod("default/b")
		if err != nil {
			return false, nil // it isn't back yet
		}
		r := l.Connect(ctx, a.Name, probe.TCP, at(b.Addr6(), 80))
		host := l.Connect(ctx, Outside, probe.TCP, at(node.Addrs()[0], 7000))
		return r.OK && host.OK, nil
	}))
	must(t, l.WaitReady(within(t, 20*time.Second)))
	b, err := l.Pod("default/b")
	must(t, err)
	wantTunnelled(t, crossing(t, l, a, at(b.Addr4(), 80)), true, l.Node("node1"), node)
	if r := l.Reach(t.Context(), b.Name, probe.TCP, at(a.Addr4(), 80)); !r.OK {
		t.Errorf("from the pod of the rebooted node: %s", r)
	}
}
