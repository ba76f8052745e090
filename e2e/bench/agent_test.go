package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/testnet"
)

// agent is what the agent does for one node, but for the API server, whose objects it is handed,
// and the CNI server.
type agent struct {
	enforcer *enforcer.Enforcer
	network  *controllers.PodNetwork
	stop     func() // may be called again; what it made stays

	mu    sync.Mutex
	state controllers.NetworkState
}

// podNetworks in the form of flannel's net-conf.json; the backend is to be filled in.
const podNetworks = `{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": %s}`

// The backends.
const (
	vxlan         = `{"Type": "vxlan"}`
	hostGW        = `{"Type": "host-gw"}`
	directRouting = `{"Type": "vxlan", "DirectRouting": true}`
)

// newAgent makes an agent for node number i that ends with the benchmark. Nothing of it runs before
// start.
func newAgent(b *testing.B, node *testnet.Node, i int, backend string) *agent {
	b.Helper()
	table, err := table.Open(table.Options{NetNS: node.NSFd()})
	must(b, err)
	b.Cleanup(func() {
		if err := table.Close(); err != nil {
			b.Error(err)
		}
	})
	netns, err := ns.GetNS(node.Path())
	must(b, err)
	b.Cleanup(func() { _ = netns.Close() })

	dir := b.TempDir()
	file := filepath.Join(dir, "net-conf.json")
	must(b, os.WriteFile(file, fmt.Appendf(nil, podNetworks, backend), 0o600))
	name := nodeObject(i).Name
	a := &agent{enforcer: enforcer.New(table,
		enforcer.NewModel(cluster.Options{Node: name}, ruleset.Config{}), enforcer.Options{})}
	a.network = controllers.NewPodNetwork(controllers.NetworkOptions{
		Node: name, ConfigFile: file, SavedFile: filepath.Join(dir, "saved.json"),
		Masquerade: true, ToNodes: controllers.MasqueradeAuto,
		Overlay: overlay.Options{NetNS: netns}, Log: logr.Discard(),
		OnRules: a.enforcer.SetNetwork, OnState: a.setState,
	})
	return a
}

func (a *agent) setState(s controllers.NetworkState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = s
}

// setNodes makes nodes known, as they would be listed at the start.
func (a *agent) setNodes(nodes ...*corev1.Node) {
	for _, node := range nodes {
		a.enforcer.Update(func(m *enforcer.Model) { m.SetNode(policy.NodeFrom(node)) })
		a.network.SetNode(node)
	}
	a.network.Listed()
}

// start runs the agent, and returns when its network is ready and its ruleset in the kernel.
func (a *agent) start(b *testing.B, peers int) controllers.NetworkState {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	a.stop = func() {
		stop()
		running.Wait()
	}
	b.Cleanup(a.stop)
	running.Go(func() {
		if err := a.network.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	var state controllers.NetworkState
	await(b, "pod network", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if state = a.state; !state.Ready || len(state.Peers) != peers {
			return fmt.Errorf("ready %t, %d peers, %s", state.Ready, len(state.Peers), state.Reason)
		}
		return nil
	})
	running.Go(func() {
		if err := a.enforcer.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	must(b, a.enforcer.AwaitFirstCommit(ctx))
	return state
}

// attach puts a pod that is wired already under policy.
func (a *agent) attach(b *testing.B, pod *corev1.Pod, host *testnet.Host) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	must(b, a.enforcer.Attach(ctx, cni.Attachment{
		ContainerID: pod.Name, IfName: "eth0", PodNamespace: pod.Namespace, PodName: pod.Name,
		PodUID:    string(pod.UID),
		Interface: host.Interface(), Addresses: []netip.Addr{host.Addr4(), host.Addr6()},
	}))
}

func nodeObject(i int) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node%d", i+1)}}
	for _, p := range []netip.Prefix{podCIDR4(i), podCIDR6(i)} {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, p.String())
	}
	for _, a := range []netip.Addr{underlay4(i), underlay6(i)} {
		node.Status.Addresses = append(node.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return node
}

// podObject is the pod of node number i.
func podObject(i int) *corev1.Pod {
	app := [...]string{"client", "server"}[i]
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: app,
			UID: types.UID("uid-of-" + app), Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{NodeName: nodeObject(i).Name},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{
			{IP: podAddr(podCIDR4(i)).String()}, {IP: podAddr(podCIDR6(i)).String()},
		}},
	}
}

// policies isolate both pods in both directions, and allow the client to use the server's ports.
var policies = map[string]string{
	"bench/client": `{podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress, Egress],
		egress: [{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{port: 9000}, {port: 9000, protocol: UDP}]}]}`,
	"bench/server": `{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 9000}, {port: 9000, protocol: UDP}]}]}`,
}

func (a *agent) setPolicies(b *testing.B) {
	b.Helper()
	for key, spec := range policies {
		np, err := cases.RenderPolicy(key, spec, cases.Addr)
		must(b, err)
		a.enforcer.Update(func(c *enforcer.Model) { c.SetPolicy(policy.Parse(np)) })
	}
}

// sluice is the way through Sluice's pod network, with the policies or without.
func sluice(backend string, policed bool) func(b *testing.B, name string) way {
	return func(b *testing.B, name string) way {
		b.Helper()
		w, _ := newCable(b).sluice(b, name, backend, policed)
		return w
	}
}

// sluice is that way over a cable, and the agents of its nodes.
func (c cable) sluice(b *testing.B, name, backend string, policed bool) (w way, agents [2]*agent) {
	b.Helper()
	w, p := c.pods(name)
	for i, host := range p {
		a := newAgent(b, c[i], i, backend)
		a.setNodes(nodeObject(0), nodeObject(1))
		a.enforcer.Update(func(cluster *enforcer.Model) {
			cluster.SetNamespace("bench", nil)
			cluster.SetPod(policy.PodFrom(podObject(0)))
			cluster.SetPod(policy.PodFrom(podObject(1)))
		})
		if policed {
			a.setPolicies(b)
		}
		state := a.start(b, 1)
		a.attach(b, podObject(i), host)
		run(b, c[i], "ip link set %s mtu %d", host.Interface(), state.MTU)
		run(b, host, "ip link set eth0 mtu %d", state.MTU)
		agents[i] = a
	}
	// What is measured is allowed by the policies, which deny the rest.
	other := netip.AddrPortFrom(w.to, serverPort+10)
	p[1].ServeTCP(other.Port())
	if policed {
		p[0].MustNotReach(b, testnet.TCP, other)
	} else {
		p[0].MustReach(b, testnet.TCP, other)
	}
	return w, agents
}
