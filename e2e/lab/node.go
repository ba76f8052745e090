package lab

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/containernetworking/plugins/pkg/ns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// agentUser is who the agent is to the API server: the service account that it would have in a cluster.
const agentUser = "system:serviceaccount:sluice-system:sluice-agent"

// agentHTTPAddress is where the agent serves its health, in its node's namespace.
const agentHTTPAddress = "127.0.0.1:9808"

// Node is a node of a lab. Its methods may be called concurrently.
type Node struct {
	lab    *Lab
	name   string
	number int
	space  ns.NetNS
	dir    string
	proxy  *proxy
	runner *runner

	mu    sync.Mutex
	agent *process // nil before the first start
}

// Name returns the node's name.
func (n *Node) Name() string { return n.name }

// Dir returns the folder of the node's files: agent.log, runner.log, and the agent's state folder sluice with its socket.
func (n *Node) Dir() string { return n.dir }

// Socket returns the path of the agent's CNI socket.
func (n *Node) Socket() string { return n.lab.socket(n.name) }

func (n *Node) stateDir() string { return filepath.Dir(n.Socket()) }

// Addrs returns the node's addresses on the underlay, one of each family.
func (n *Node) Addrs() []netip.Addr { return n.lab.plan.host(n.number) }

// PodCIDRs returns the ranges of the node's pods, one of each family.
func (n *Node) PodCIDRs() []netip.Prefix { return n.lab.plan.podCIDRs(n.number) }

// Do runs f in the node's network namespace, see View.Do.
func (n *Node) Do(f func() error) error { return n.lab.Do(n.name, f) }

// Nft runs the nft tool in the node's network namespace and returns what it printed.
func (n *Node) Nft(ctx context.Context, args ...string) (string, error) {
	return n.lab.Nft(ctx, n.name, args...)
}

// CutAPI ends the agent's connections to the API server and refuses new ones, until RestoreAPI. The runner isn't affected.
func (n *Node) CutAPI() { n.proxy.cut() }

// RestoreAPI undoes CutAPI.
func (n *Node) RestoreAPI() error { return n.proxy.restore() }

// newNode makes the node's namespace, with its cable and its way to the API server.
func (l *Lab) newNode(number int) (*Node, error) {
	n := &Node{lab: l, name: nodeName(number), number: number}
	n.dir = filepath.Join(l.dir, nodesDir, n.name)
	if err := os.MkdirAll(n.stateDir(), 0o700); err != nil {
		return nil, err
	}
	var err error
	n.space, err = newNamespace(nsName(l.name, n.name), nodeSysctls()...)
	if err != nil {
		return nil, err
	}
	n.proxy = newProxy(n.space, fmt.Sprintf("127.0.0.1:%d", l.control.apiPort))
	if err := plugIn(l.underlay, n.space, n.name, n.Addrs()); err != nil {
		return n, err
	}
	if err := n.proxy.restore(); err != nil {
		return n, err
	}
	pair, err := l.control.ca.issue(pkix.Name{CommonName: agentUser, Organization: []string{"system:serviceaccounts"}})
	if err != nil {
		return n, err
	}
	return n, writeKubeconfig(n.kubeconfig(), l.name, "https://"+apiProxyAddress, l.control.ca.pem, pair)
}

func (n *Node) kubeconfig() string { return filepath.Join(n.dir, kubeconfigFile) }

// object is the node as its kubelet would register it, ready.
func (n *Node) object() *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: n.name,
			Labels: map[string]string{
				corev1.LabelHostname: n.name,
				corev1.LabelOSStable: "linux",
			},
		},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: n.name}},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "LabNode", LastTransitionTime: metav1.Now(),
			}},
		},
	}
	for _, cidr := range n.PodCIDRs() {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, cidr.String())
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	for _, addr := range n.Addrs() {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: addr.String()})
	}
	return node
}

// register creates the node's object. The API server drops the status of a new one, so it follows.
func (n *Node) register(ctx context.Context) error {
	node := n.object()
	status := node.Status.DeepCopy()
	if err := n.lab.client.Create(ctx, node); err != nil {
		return fmt.Errorf("creating node %s: %w", n.name, err)
	}
	node.Status = *status
	node.Spec.Taints = nil // not-ready, which admission adds to a new node
	if err := n.lab.client.Update(ctx, node); err != nil {
		return fmt.Errorf("updating node %s: %w", n.name, err)
	}
	node.Status = *status
	if err := n.lab.client.Status().Update(ctx, node); err != nil {
		return fmt.Errorf("updating the status of node %s: %w", n.name, err)
	}
	return nil
}

// AgentLog returns what the node's agents have logged, or the end of it, for the message of a test that fails.
func (n *Node) AgentLog() string {
	const most = 64 << 10
	text, err := os.ReadFile(n.agentLog())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

func (n *Node) agentLog() string { return filepath.Join(n.dir, "agent.log") }

// StartAgent starts the node's agent unless it runs. Its output goes to agent.log in Dir.
func (n *Node) StartAgent() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil && n.agent.running() {
		return nil
	}
	agent, err := n.lab.spawner.start(program{
		name: "sluice-agent of " + n.name,
		path: n.lab.programs.Agent,
		args: append([]string{
			"--node-name=" + n.name,
			"--kubeconfig=" + n.kubeconfig(),
			"--state-dir=" + n.stateDir(),
			"--socket=" + n.Socket(),
			"--http-address=" + agentHTTPAddress,
		}, n.lab.options.AgentArgs...),
		in:  n.space,
		log: n.agentLog(),
	})
	if err != nil {
		return err
	}
	n.agent = agent
	return nil
}

// KillAgent kills the node's agent (SIGKILL) and returns when it is gone. It stays so until StartAgent.
func (n *Node) KillAgent() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil {
		n.agent.kill()
	}
}

// WaitAgentReady waits until the agent says that it is ready: everything is known and applied. An agent that has ended is an error.
func (n *Node) WaitAgentReady(ctx context.Context) error {
	n.mu.Lock()
	agent := n.agent
	n.mu.Unlock()
	if agent == nil {
		return fmt.Errorf("node %s: the agent was never started", n.name)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: n.dial, DisableKeepAlives: true}}
	return eventually(ctx, readyTimeout, "the agent of "+n.name+" being ready", func() (bool, error) {
		if !agent.running() {
			return false, agent.failure()
		}
		return answersOK(ctx, client, "http://"+agentHTTPAddress+"/readyz"), nil
	})
}

// dial connects from the node's namespace.
func (n *Node) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.space.Do(func(ns.NetNS) (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
