package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/internal/replace"
)

// runnerOptions say for which node a runner is.
type runnerOptions struct {
	lab, node string // their names
	dir       string // for its log and libcni's cache
	confDir   string // of CNI configurations
	podsDir   string // where pods that run are kept
	plugins   string // the folder of CNI plugins
	program   string // that runs in each pod
	spawner   *spawner
	client    client.WithWatch
	// background has all goroutines.
	background *sync.WaitGroup
	addrs      func() []netip.Addr // of the node
	// report tells the API server what is wrong with the node's network; "": nothing.
	report func(ctx context.Context, problem string) error
}

// cacheDir is libcni's own, in the node's folder.
const cacheDir = "cni/cache"

// runner is in the place of the kubelet and the container runtime on one node: it has a worker for each pod that is bound to the
// node, and says whether the node is ready.
type runner struct {
	options runnerOptions
	cni     *libcni.CNIConfig
	log     logr.Logger
	power   *power
	network networkStatus

	ctx  context.Context // ends with the node, or the lab
	stop context.CancelFunc

	mu      sync.Mutex
	started bool
	workers map[types.UID]*worker
	boxes   map[*sandbox]bool // that have a network
}

// newRunner returns one that does nothing before start. It ends with ctx, or by end.
func newRunner(ctx context.Context, options runnerOptions) *runner {
	log := newLog(filepath.Join(options.dir, "runner.log"))
	// Left out, libcni would make one when it is first used, without asking who else does.
	execute := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: pluginOutput{log}}}
	cache := filepath.Join(options.dir, cacheDir)
	r := &runner{
		options: options,
		cni:     libcni.NewCNIConfigWithCacheDir([]string{options.plugins}, cache, execute),
		log:     log,
		power:   newPower(),
		network: networkStatus{problem: "nobody has asked the CNI plugin yet", changed: make(chan struct{})},
		workers: map[types.UID]*worker{},
		boxes:   map[*sandbox]bool{},
	}
	r.ctx, r.stop = context.WithCancel(ctx)
	return r
}

// onNode runs f in the node's network namespace.
func (r *runner) onNode(f func() error) error { return inNamespace(r.space(), f) }

func (r *runner) space() string { return nsName(r.options.lab, r.options.node) }

// start takes up the node's pods, as they are and as they change, and its readiness.
func (r *runner) start(ctx context.Context) error {
	r.mu.Lock()
	r.started = true
	r.mu.Unlock()
	r.options.background.Go(func() { r.watchNetwork(r.ctx) })
	var pods corev1.PodList // that were bound to it before
	if err := r.options.client.List(ctx, &pods); err != nil {
		return fmt.Errorf("listing the pods of %s: %w", r.options.node, err)
	}
	for _, pod := range pods.Items {
		if pod.Spec.NodeName == r.options.node {
			r.update(&pod)
		}
	}
	return nil
}

// end ends the runner and its pods' programs, and leaves their networks.
func (r *runner) end() {
	r.stop()
	r.power.off(r.killPods)
	r.power.on()
}

// off is the end of the node's machine, and says why: nothing runs and nothing begins until on.
func (r *runner) off(why string) {
	r.power.off(r.killPods)
	r.network.set(why)
}

// on begins again, after off.
func (r *runner) on() { r.power.on() }

// killPods ends all pods' programs at once and takes their namespaces away, as the end of a machine does.
func (r *runner) killPods() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for box := range r.boxes {
		if err := errors.Join(box.destroy(), r.unsave(box.pod)); err != nil {
			r.log.Error(err, "pod wasn't killed", "pod", box.pod.Name)
		}
	}
	clear(r.boxes)
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

// update tells the pod's worker of its object, and starts one for a new pod.
func (r *runner) update(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started || r.ctx.Err() != nil {
		return
	}
	w := r.workers[pod.UID]
	if w == nil {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			return // nobody of ours says so: a test does, with a pod that isn't to run
		}
		w = newWorker(r.ctx, r, pod)
		r.workers[pod.UID] = w
		defer r.options.background.Go(func() { w.run(r.ctx) })
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

// keep notes a sandbox as one that killPods is to end.
func (r *runner) keep(box *sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.boxes[box] = true
}

// release undoes keep.
func (r *runner) release(box *sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.boxes, box)
}

// save keeps what is asked for by who wants the pod.
func (r *runner) save(pod Pod) error {
	return replace.WithJSON(podFile(r.options.podsDir, pod.Name), pod)
}

// unsave removes it, unless a later pod of the name has taken its place.
func (r *runner) unsave(pod Pod) error {
	saved, err := readPod(r.options.podsDir, pod.Name)
	if err == nil && saved.UID == pod.UID {
		err = os.Remove(podFile(r.options.podsDir, pod.Name))
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
