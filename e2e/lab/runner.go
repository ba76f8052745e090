package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// runner is in the kubelet's place on one node: it has a worker for each pod that is bound to the node.
type runner struct {
	node    *Node
	network *libcni.NetworkConfigList
	cni     *libcni.CNIConfig
	log     logr.Logger

	mu      sync.Mutex
	workers map[types.UID]*worker
}

func newRunner(node *Node) (*runner, error) {
	file := filepath.Join(node.dir, "cni", "net.d", "05-sluice.conflist")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	if err := writeJSON(file, node.conflist()); err != nil {
		return nil, fmt.Errorf("writing the CNI configuration of %s: %w", node.name, err)
	}
	network, err := libcni.ConfListFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the CNI configuration of %s: %w", node.name, err)
	}
	log := newLog(filepath.Join(node.dir, "runner.log"))
	// Left out, libcni would make one when it is first used, without asking who else does.
	execute := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: pluginOutput{log}}}
	return &runner{
		node:    node,
		network: network,
		cni:     libcni.NewCNIConfigWithCacheDir([]string{node.lab.programs.Plugins}, filepath.Join(node.dir, "cni", "cache"), execute),
		log:     log,
		workers: map[types.UID]*worker{},
	}, nil
}

// pluginOutput logs what plugins write to their standard error.
type pluginOutput struct{ log logr.Logger }

func (p pluginOutput) Write(text []byte) (int, error) {
	p.log.Info("plugin", "output", strings.TrimSpace(string(text)))
	return len(text), nil
}

// newLog appends lines to a file, which is opened for each: a lab has few, and nothing is left open.
func newLog(file string) logr.Logger {
	var mu sync.Mutex
	write := func(_, line string) {
		mu.Lock()
		defer mu.Unlock()
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return // the lab is gone
		}
		defer func() { _ = f.Close() }()
		_, _ = fmt.Fprintln(f, time.Now().Format(time.RFC3339Nano), line)
	}
	return funcr.New(write, funcr.Options{})
}

// conflist is the node's CNI network.
func (n *Node) conflist() map[string]any {
	plugin := map[string]any{"type": "sluice", "socket": n.Socket(), "stateDir": n.stateDir()}
	if n.lab.options.NoAgent {
		plugin = n.stockPlugin()
	}
	return map[string]any{"cniVersion": "1.1.0", "name": "sluice", "plugins": []any{plugin}}
}

// stockPlugin is the CNI project's routed veth, with addresses from the node's ranges.
func (n *Node) stockPlugin() map[string]any {
	var ranges, routes []any
	for _, cidr := range n.PodCIDRs() {
		ranges = append(ranges, []any{map[string]any{"subnet": cidr.String()}})
		anywhere := "0.0.0.0/0"
		if cidr.Addr().Is6() {
			anywhere = "::/0"
		}
		routes = append(routes, map[string]any{"dst": anywhere})
	}
	return map[string]any{
		"type": "ptp",
		"ipam": map[string]any{"type": "host-local", "dataDir": n.stateDir(), "ranges": ranges, "routes": routes},
	}
}

// update tells the pod's worker of its object, and starts one for a new pod.
func (r *runner) update(ctx context.Context, pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.workers[pod.UID]
	if w == nil {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			return // nobody of ours says so: a test does, with a pod that isn't to run
		}
		w = newWorker(ctx, r, pod)
		r.workers[pod.UID] = w
		defer r.node.lab.background.Go(func() { w.run(ctx) })
	}
	w.update(pod)
}

// forget ends the worker of a pod whose object is gone. Until then a worker that is done stays known: there may be events of
// its pod to come.
func (r *runner) forget(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.workers[pod.UID]; w != nil {
		w.forget()
		delete(r.workers, pod.UID)
	}
}

// save keeps what is asked for by who wants the pod.
func (r *runner) save(pod Pod) error {
	namespace, name, _ := strings.Cut(pod.Name, "/")
	return writeJSON(r.node.lab.podFile(namespace, name), pod)
}

// unsave removes it, unless a later pod of the name has taken its place.
func (r *runner) unsave(pod Pod) error {
	namespace, name, _ := strings.Cut(pod.Name, "/")
	file := r.node.lab.podFile(namespace, name)
	saved, err := readPod(file)
	if err == nil && saved.UID == pod.UID {
		err = os.Remove(file)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
