package kubelet

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
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
)

// Options say for which node a Kubelet is.
type Options struct {
	Lab, Node string // their names
	Dir       string // for its log and libcni's cache
	ConfDir   string // of CNI configurations
	PodsDir   string // where pods that run are kept
	Plugins   string // the folder of CNI plugins
	Program   string // that runs in each pod
	Spawner   *process.Spawner
	Client    client.WithWatch
	// Background has all goroutines.
	Background *sync.WaitGroup
	Addrs      func() []netip.Addr // of the node
	// Report tells the API server what is wrong with the node's network; "": nothing.
	Report func(ctx context.Context, problem string) error
}

// cacheDir is libcni's own, in the node's folder.
const cacheDir = "cni/cache"

// Kubelet is in the place of kubelet and container runtime on one node. Its methods may be called
// concurrently.
type Kubelet struct {
	options Options
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

// New returns one that does nothing before Start. It ends with ctx, or by End.
func New(ctx context.Context, options Options) *Kubelet {
	log := newLog(filepath.Join(options.Dir, "kubelet.log"))
	// Left out, libcni would make one when it is first used, without asking who else does.
	execute := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: pluginOutput{log}}}
	cache := filepath.Join(options.Dir, cacheDir)
	k := &Kubelet{
		options: options,
		cni:     libcni.NewCNIConfigWithCacheDir([]string{options.Plugins}, cache, execute),
		log:     log,
		power:   newPower(),
		network: networkStatus{
			problem: "nobody has asked the CNI plugin yet",
			changed: make(chan struct{}),
		},
		workers: map[types.UID]*worker{},
		boxes:   map[*sandbox]bool{},
	}
	k.ctx, k.stop = context.WithCancel(ctx)
	return k
}

// onNode runs f in the node's network namespace.
func (k *Kubelet) onNode(f func() error) error { return namespace.In(k.space(), f) }

func (k *Kubelet) space() string { return namespace.Name(k.options.Lab, k.options.Node) }

// Start takes up the node's pods, as they are and as they change, and its readiness.
func (k *Kubelet) Start(ctx context.Context) error {
	k.mu.Lock()
	k.started = true
	k.mu.Unlock()
	k.options.Background.Go(func() { k.watchNetwork(k.ctx) })
	var pods corev1.PodList // that were bound to it before
	if err := k.options.Client.List(ctx, &pods); err != nil {
		return fmt.Errorf("listing the pods of %s: %w", k.options.Node, err)
	}
	for _, pod := range pods.Items {
		if pod.Spec.NodeName == k.options.Node {
			k.Update(&pod)
		}
	}
	return nil
}

// End ends the pods' programs, and leaves their networks.
func (k *Kubelet) End() {
	k.stop()
	k.power.off(k.killPods)
	k.power.on()
}

// Off is the end of the node's machine, and says why: nothing runs and nothing begins until On.
func (k *Kubelet) Off(why string) {
	k.power.off(k.killPods)
	k.network.set(why)
}

// On begins again, after Off.
func (k *Kubelet) On() { k.power.on() }

// killPods ends all pods' programs at once and takes their namespaces away, as the end of a machine
// does.
func (k *Kubelet) killPods() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for box := range k.boxes {
		if err := errors.Join(box.destroy(), k.unsave(box.pod)); err != nil {
			k.log.Error(err, "pod wasn't killed", "pod", box.pod.Name)
		}
	}
	clear(k.boxes)
}

// pluginOutput logs what plugins write to their standard error.
type pluginOutput struct{ log logr.Logger }

func (p pluginOutput) Write(text []byte) (int, error) {
	p.log.Info("plugin", "output", strings.TrimSpace(string(text)))
	return len(text), nil
}

// newLog appends lines to a file, which is opened for each: a lab has few, and nothing is left
// open.
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

// Update tells the pod's worker of its object, and starts one for a new pod.
func (k *Kubelet) Update(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.started || k.ctx.Err() != nil {
		return
	}
	w := k.workers[pod.UID]
	if w == nil {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			return // nobody of ours says so: a test does, with a pod that isn't to run
		}
		w = newWorker(k.ctx, k, pod)
		k.workers[pod.UID] = w
		defer k.options.Background.Go(func() { w.run(k.ctx) })
	}
	w.update(pod)
}

// Forget ends the worker of a pod whose object is gone. Until then a worker that is done stays
// known: there may be events of its pod to come.
func (k *Kubelet) Forget(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[pod.UID]; w != nil {
		w.forget()
		delete(k.workers, pod.UID)
	}
}

// keep notes a sandbox as one that killPods is to end.
func (k *Kubelet) keep(box *sandbox) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.boxes[box] = true
}

// release undoes keep.
func (k *Kubelet) release(box *sandbox) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.boxes, box)
}

// save keeps what is asked for by who wants the pod.
func (k *Kubelet) save(pod Pod) error {
	return replace.WithJSON(podFile(k.options.PodsDir, pod.Name), pod)
}

// unsave removes it, unless a later pod of the name has taken its place.
func (k *Kubelet) unsave(pod Pod) error {
	saved, err := ReadPod(k.options.PodsDir, pod.Name)
	if err == nil && saved.UID == pod.UID {
		err = os.Remove(podFile(k.options.PodsDir, pod.Name))
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
