package lab

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/e2e/internal/replace"
	"github.com/sluice-net/sluice/e2e/lab/kubelet"
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/e2e/lab/proxy"
)

// Node is a node of a lab. Its methods may be called concurrently.
type Node struct {
	lab     *Lab
	name    string
	number  int
	dir     string
	proxy   *proxy.Proxy
	kubelet *kubelet.Kubelet

	mu       sync.Mutex
	agent    *process.Process // nil before the first start
	launcher []string         // of the agent
}

// The folders and files of a node, in its Dir.
const (
	nodeSluiceDir  = "sluice"    // the agent's state, on tmpfs
	nodeRunDir     = "run"       // on tmpfs
	nodeConfDir    = "cni/net.d" // CNI configurations
	nodeSubnetFile = "run/flannel/subnet.env"
)

// Name returns the node's name.
func (n *Node) Name() string { return n.name }

// Dir returns the folder of the node's files: agent.log, kubelet.log, the agent's state folder
// sluice with its socket, and what ConfDir and SubnetFile say.
func (n *Node) Dir() string { return n.dir }

// Socket returns the path of the agent's CNI socket.
func (n *Node) Socket() string { return n.lab.socket(n.name) }

// ConfDir returns the folder of CNI configurations, in which the agent leaves its own. Pods get the
// first by name.
func (n *Node) ConfDir() string { return filepath.Join(n.dir, nodeConfDir) }

// SubnetFile returns the path of the file that flannel has in /run/flannel/subnet.env.
func (n *Node) SubnetFile() string { return filepath.Join(n.dir, nodeSubnetFile) }

func (n *Node) stateDir() string { return filepath.Dir(n.Socket()) }

// space is the name of the node's network namespace.
func (n *Node) space() string { return namespace.Name(n.lab.name, n.name) }

// Addrs returns the node's addresses on the underlay, at most one of each family.
func (n *Node) Addrs() []netip.Addr { return n.lab.nodeState(n.name).Addrs }

// PodCIDRs returns the ranges of the node's pods, at most one of each family.
func (n *Node) PodCIDRs() []netip.Prefix { return n.lab.nodeState(n.name).PodCIDRs }

// Do runs f in the node's network namespace, see View.Do.
func (n *Node) Do(f func() error) error { return namespace.In(n.space(), f) }

// Nft runs the nft tool in the node's network namespace and returns what it printed.
func (n *Node) Nft(ctx context.Context, args ...string) (string, error) {
	return n.lab.Nft(ctx, n.name, args...)
}

// CutAPI ends the agent's connections to the API server and refuses new ones, until RestoreAPI. The
// kubelet isn't affected.
func (n *Node) CutAPI() { n.proxy.Cut() }

// HoldAPI makes the agent's connections to the API server carry nothing any more, in either
// direction, without an end. New ones do.
func (n *Node) HoldAPI() { n.proxy.Hold() }

// DelayAPI has the API server's answers to the node arrive so much later, on connections that are
// made from now on.
func (n *Node) DelayAPI(by time.Duration) { n.proxy.Delay(by) }

// RestoreAPI undoes CutAPI.
func (n *Node) RestoreAPI() error { return n.proxy.Restore() }

// newNode makes the node's machine: its files, its namespace, and its access to the API server.
func (l *Lab) newNode(state nodeState) (*Node, error) {
	n := &Node{lab: l, name: state.Name, number: state.Number,
		dir: filepath.Join(l.dir, nodesDir, state.Name)}
	n.proxy = proxy.New(n.space(), l.control.Address())
	for _, dir := range []string{nodeSluiceDir, nodeRunDir, nodeConfDir} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("making the files of %s: %w", n.name, err)
		}
	}
	user := pkix.Name{CommonName: agentUser, Organization: []string{"system:serviceaccounts"}}
	err := l.control.WriteKubeconfig(n.Kubeconfig(), l.name, proxy.Address, user)
	if err != nil {
		return nil, err
	}
	if l.options.NoAgent {
		file := filepath.Join(n.ConfDir(), "10-ptp.conflist")
		if err := replace.WithJSON(file, n.stockConflist()); err != nil {
			return nil, fmt.Errorf("writing the CNI configuration of %s: %w", n.name, err)
		}
	}
	n.kubelet = kubelet.New(l.running, kubelet.Options{
		Lab: l.name, Node: n.name, Dir: n.dir, ConfDir: n.ConfDir(), PodsDir: l.podsDir(),
		Plugins: l.programs.Plugins, Program: l.programs.Pod, Spawner: l.spawner, Client: l.client,
		Background: &l.background, Addrs: n.Addrs, Report: n.reportNetwork,
	})
	return n, nil
}

// reportNetwork writes the node's readiness into its object.
func (n *Node) reportNetwork(ctx context.Context, problem string) error {
	status := map[string]any{"conditions": []corev1.NodeCondition{readyCondition(problem)}}
	return n.lab.patchNodeStatus(ctx, n.name, types.StrategicMergePatchType, status)
}

// Kubeconfig returns the path of the file by which the agent reaches the API server, as it may.
func (n *Node) Kubeconfig() string { return filepath.Join(n.dir, kubeconfigFile) }

// powerOn makes the node's namespace, with its cable and its way to the API server.
func (n *Node) powerOn() error {
	// Where it makes the pod network, the agent is to turn forwarding on.
	sysctls := append(namespace.Forwards(n.lab.options.NoAgent),
		n.lab.options.RPFilter.sysctls()...)
	if err := namespace.New(n.space(), sysctls...); err != nil {
		return err
	}
	subnet := n.lab.plan.subnetOf(n.number)
	err := n.lab.plugIn(cable{
		name: n.name, subnet: subnet, host: n.space(), link: uplinkName, addrs: n.Addrs(),
		mac: net.HardwareAddr{0x02, 'n', 'o', 'd', 'e', byte(n.number)}, // the same after a reboot
	})
	if err == nil {
		err = n.routeToRouter()
	}
	if err == nil {
		err = n.proxy.Restore()
	}
	return err
}

// routeToRouter adds the default routes, if there is a router.
func (n *Node) routeToRouter() error {
	if n.lab.plan.subnets == 1 {
		return nil
	}
	return n.Do(func() error {
		for _, addr := range n.lab.plan.router(n.lab.plan.subnetOf(n.number)) {
			anywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if addr.Is6() {
				anywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			if err := replaceRoute(uplinkName, anywhere, addr, netip.Addr{}); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		return nil
	})
}

// powerOff kills what runs on the node and removes its namespaces, with all that the kernel knew in
// them.
func (n *Node) powerOff() error {
	n.KillAgent()
	n.proxy.Cut()
	return errors.Join(n.lab.unplug(n.name), namespace.Delete(n.space()))
}

// stockConflist is a network by the CNI project's routed veth, with addresses from the node's
// ranges.
func (n *Node) stockConflist() map[string]any {
	var ranges, routes []any
	for _, cidr := range n.PodCIDRs() {
		ranges = append(ranges, []any{map[string]any{"subnet": cidr.String()}})
		anywhere := "0.0.0.0/0"
		if cidr.Addr().Is6() {
			anywhere = "::/0"
		}
		routes = append(routes, map[string]any{"dst": anywhere})
	}
	plugin := map[string]any{
		"type": "ptp",
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(n.dir, nodeRunDir, "host-local"),
			"ranges": ranges, "routes": routes,
		},
	}
	return map[string]any{"cniVersion": "1.1.0", "name": "stock", "plugins": []any{plugin}}
}
