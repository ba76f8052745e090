package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containernetworking/plugins/pkg/ns"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/e2e/lab/capture"
	"github.com/sluice-net/sluice/e2e/lab/kubelet"
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/test/probe"
)

// View is a lab as any process of the machine's root sees it. Its methods may be called
// concurrently.
type View struct {
	name    string
	dir     string
	plan    plan
	kubectl string
	agent   string
	client  client.WithWatch

	mu     sync.Mutex
	states []nodeState // by number
}

// OpenLab returns a view of a lab that is ready, whatever process has brought it up.
func OpenLab(name string) (*View, error) {
	s, err := readState(name)
	if err != nil {
		return nil, err
	}
	if !process.IsSame(s.Supervisor, s.Started) {
		return nil, fmt.Errorf("lab %s: its process has died; what remains is removed by Down",
			name)
	}
	if !s.Ready {
		return nil, fmt.Errorf("lab %s isn't ready yet", name)
	}
	return newView(s)
}

func newView(s state) (*View, error) {
	v := &View{
		name:    s.Name,
		dir:     stateDir(s.Name),
		plan:    s.plan(),
		kubectl: s.Kubectl,
		agent:   s.Agent,
		states:  s.Nodes,
	}
	config, err := clientcmd.BuildConfigFromFlags("", v.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of lab %s: %w", s.Name, err)
	}
	config.QPS = -1 // no throttling
	v.client, err = client.NewWithWatch(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("making a client for lab %s: %w", s.Name, err)
	}
	return v, nil
}

// Name returns the lab's name.
func (v *View) Name() string { return v.name }

// Dir returns the folder that the lab keeps its files and logs in.
func (v *View) Dir() string { return v.dir }

// Kubeconfig returns the name of a file with the administrator's access to the API server.
func (v *View) Kubeconfig() string { return filepath.Join(v.dir, kubeconfigFile) }

// Kubectl returns the path of a kubectl of the API server's version, or "" if none came with it.
func (v *View) Kubectl() string { return v.kubectl }

// Client returns a client with the administrator's access, without cache or throttle.
func (v *View) Client() client.WithWatch { return v.client }

// NodeNames returns the names of the nodes.
func (v *View) NodeNames() []string {
	var names []string
	for _, node := range v.nodeStates() {
		names = append(names, node.Name)
	}
	return names
}

// NodeAddrs returns a node's addresses on the underlay, or nil.
func (v *View) NodeAddrs(node string) []netip.Addr { return v.nodeState(node).Addrs }

// nodeStates returns all nodes. What they hold isn't changed, but replaced.
func (v *View) nodeStates() []nodeState {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.states)
}

// nodeState returns a node, or one without anything.
func (v *View) nodeState(name string) nodeState {
	for _, node := range v.nodeStates() {
		if node.Name == name {
			return node
		}
	}
	return nodeState{}
}

// OutsideAddrs returns the addresses of the outside host, those of IPv4 first. From the first of
// each family it connects, and it serves TCP port 80 on all.
func (v *View) OutsideAddrs() []netip.Addr { return v.plan.outside() }

// NetNS returns the file of a place's network namespace.
func (v *View) NetNS(place string) (string, error) {
	if place == Outside || slices.Contains(v.NodeNames(), place) {
		return namespace.Path(namespace.Name(v.name, place)), nil
	}
	pod, err := v.Pod(place)
	if err != nil {
		return "", err
	}
	return namespace.Path(pod.NetNS(v.name)), nil
}

// Do runs f in a place's network namespace, on an OS thread of its own that f must not unlock.
// Sockets that f opens stay there; goroutines that f starts run elsewhere.
func (v *View) Do(place string, f func() error) error {
	path, err := v.NetNS(place)
	if err != nil {
		return err
	}
	return ns.WithNetNSPath(path, func(ns.NetNS) error { return f() })
}

// Nft runs the nft tool in a place, a node for example, and returns what it printed.
func (v *View) Nft(ctx context.Context, place string, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	// The process inherits the namespace of the thread that starts it.
	err := v.Do(place, func() error {
		cmd := exec.CommandContext(ctx, "nft", args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		return "", fmt.Errorf("nft %s in %s: %w %s", strings.Join(args, " "), place, err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Why asks the agent of a node whether it allows a connection, and by what. Source and destination
// are addresses or pods ("namespace/name"), the port is as sluice-agent why takes it: "80",
// "53/udp".
func (v *View) Why(ctx context.Context, node, source, destination, port string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, v.agent, "why", "--socket", v.socket(node), source, destination,
		port)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("asking %s why: %w %s", node, err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// socket is the CNI socket of a node's agent.
func (v *View) socket(node string) string {
	return filepath.Join(v.dir, nodesDir, node, "sluice", cni.SocketName)
}

// Connect tries once to connect from a place, as probe.Connect does. A place that can't be entered
// is an error of the Result.
func (v *View) Connect(
	ctx context.Context, from string, proto probe.Protocol, dst netip.AddrPort,
	opts ...probe.Option,
) probe.Result {
	return v.inside(ctx, from, func() probe.Result { return probe.Connect(proto, dst, opts...) })
}

// Reach connects from a place until it works, as probe.Reach does.
func (v *View) Reach(
	ctx context.Context, from string, proto probe.Protocol, dst netip.AddrPort,
	opts ...probe.Option,
) probe.Result {
	return v.inside(ctx, from, func() probe.Result { return probe.Reach(proto, dst, opts...) })
}

func (v *View) inside(ctx context.Context, place string, connect func() probe.Result) probe.Result {
	if ctx.Err() != nil {
		return probe.Result{Err: context.Cause(ctx)}
	}
	var result probe.Result
	err := v.Do(place, func() error {
		result = connect()
		return nil
	})
	if err != nil {
		return probe.Result{Err: err}
	}
	return result
}

// OpenFlow opens a lasting connection from a place, as probe.Open does. It is the caller's to
// close.
func (v *View) OpenFlow(
	from string, proto probe.Protocol, dst netip.AddrPort, opts ...probe.Option,
) (*probe.Flow, error) {
	var flow *probe.Flow
	err := v.Do(from, func() (err error) {
		flow, err = probe.Open(proto, dst, opts...)
		return err
	})
	return flow, err
}

// Serve serves a TCP or UDP port in a place, from this process, under the place's name. The server
// is the caller's to close.
func (v *View) Serve(place string, proto probe.Protocol, port uint16) (*probe.Server, error) {
	var server *probe.Server
	err := v.Do(place, func() (err error) {
		switch proto {
		case probe.TCP:
			server, err = probe.ServeTCP(place, port)
		case probe.UDP:
			server, err = probe.ServeUDP(place, port)
		default:
			err = fmt.Errorf("no server for %s", proto)
		}
		return err
	})
	return server, err
}

// Capture keeps the IP packets that a link of a place sends and receives and that match; a nil
// match takes all. It has begun when this returns; Stop ends it. On a veth the kernel hands over
// TCP in pieces larger than the MTU.
func (v *View) Capture(
	place, link string, match func(capture.Packet) bool,
) (*capture.Capture, error) {
	var c *capture.Capture
	err := v.Do(place, func() (err error) {
		c, err = capture.Start(link, match)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capturing on %s of %s: %w", link, place, err)
	}
	return c, nil
}

// Pod is a pod that runs.
type Pod = kubelet.Pod

// Pod returns a pod that has a network, by its namespace and name.
func (v *View) Pod(name string) (Pod, error) {
	if !strings.Contains(name, "/") {
		return Pod{}, fmt.Errorf("%q is neither a node, %s, nor a pod's namespace/name", name,
			Outside)
	}
	pod, err := kubelet.ReadPod(v.podsDir(), name)
	if errors.Is(err, os.ErrNotExist) {
		return Pod{}, fmt.Errorf("pod %s doesn't run in lab %s", name, v.name)
	}
	return pod, err
}

// Pods returns all pods that have a network, by name.
func (v *View) Pods() ([]Pod, error) { return kubelet.ReadPods(v.podsDir()) }

func (v *View) podsDir() string { return filepath.Join(v.dir, podsDir) }
