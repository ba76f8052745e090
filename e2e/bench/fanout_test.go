package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/policy"
)

const (
	fanoutChanges = 200
	fanoutRate    = 20 // changes a second, which two cores can take for 1,000 watchers
	fanoutIdle    = 5 * time.Second
)

// BenchmarkFanout is what one change of a pod, and one of a Node, costs a real API server with many
// agents that watch: CPU, and bytes to each of them. The agents are simulated: each has a
// connection of its own, and watches as the agent does, but keeps nothing. Changes are written into
// etcd, so that what writing costs the API server isn't counted.
func BenchmarkFanout(b *testing.B) {
	if !long {
		b.Skip("only with SLUICE_LONG=1: it takes minutes")
	}
	f := newFanout(b)
	must(b, f.lab.Store(b.Context(), numbered(f.namespaces(), f.namespace)))
	must(b, f.lab.Store(b.Context(), numbered(f.nodes, f.node)))
	must(b, f.lab.Store(b.Context(), numbered(f.pods(),
		func(i int) client.Object { return f.pod(i, podState{}) })))
	for _, watchers := range []int{1, 100, 500, 1000} {
		f.watch(watchers)
		f.report("pod", f.changedPod)
		f.report("node", f.changedNode)
	}
}

// fanout is an API server, and those that watch it.
type fanout struct {
	population
	b        *testing.B
	lab      *lab.Lab
	config   *rest.Config
	metrics  *http.Client
	watchers int
	events   atomic.Int64 // that all watchers have heard of
	bytes    atomic.Int64 // that they have read, encrypted
	changes  int          // so far
}

func newFanout(b *testing.B) *fanout {
	b.Helper()
	l := newLab(b, "fanout", lab.Options{Nodes: 1, NoAgent: true})
	config, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	must(b, err)
	metrics, err := rest.HTTPClientFor(config)
	must(b, err)
	return &fanout{population: population{nodes: 10}, b: b, lab: l, config: config,
		metrics: metrics}
}

// watch adds watchers up to a number. It returns when all have their lists.
func (f *fanout) watch(watchers int) {
	f.b.Helper()
	ctx, stop := context.WithCancel(klog.NewContext(f.b.Context(), logr.Discard()))
	var watching sync.WaitGroup
	var all []*http.Client
	f.b.Cleanup(func() {
		stop()
		watching.Wait()
		for _, connections := range all {
			connections.CloseIdleConnections()
		}
	})
	for ; f.watchers < watchers; f.watchers++ {
		config := rest.CopyConfig(f.config)
		config.Dial = f.dial // a function of its own: no two watchers share connections
		connections, err := rest.HTTPClientFor(config)
		must(f.b, err)
		all = append(all, connections)
		pods, err := controllers.WatchPods(config, connections, scheme.Scheme)
		must(f.b, err)
		nodes, err := watchNodes(config, connections)
		must(f.b, err)
		for _, kind := range []struct {
			from cache.ListerWatcher
			of   client.Object
		}{{pods, &corev1.Pod{}}, {nodes, &corev1.Node{}}} {
			listed := &watcher{events: &f.events, listed: make(chan struct{})}
			watching.Go(func() {
				cache.NewReflectorWithOptions(kind.from, kind.of, listed,
					cache.ReflectorOptions{}).RunWithContext(ctx)
			})
			select {
			case <-listed.listed:
			case <-time.After(patience):
				f.b.Fatalf("watcher %d has no list of %T within %s", f.watchers, kind.of, patience)
			}
		}
	}
}

func (f *fanout) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	return countedConn{conn, &f.bytes}, err
}

// watchNodes lists and watches all Nodes, as controller-runtime's cache does.
func watchNodes(config *rest.Config, connections *http.Client) (cache.ListerWatcher, error) {
	nodes, err := apiutil.RESTClientForGVK(corev1.SchemeGroupVersion.WithKind("Node"), false, false,
		config, serializer.NewCodecFactory(scheme.Scheme), connections)
	if err != nil {
		return nil, err
	}
	return cache.NewListWatchFromClient(nodes, "nodes", "", fields.Everything()), nil
}

// report makes changes at a steady rate, and reports what they cost, without what the API server
// takes for itself in that time.
func (f *fanout) report(kind string, changed func() client.Object) {
	f.b.Helper()
	cpu := f.cpu()
	<-time.After(fanoutIdle)
	idle := (f.cpu() - cpu) / fanoutIdle.Seconds()

	cpu, bytes, start := f.cpu(), f.bytes.Load(), time.Now()
	late := f.change(changed)
	cpu = f.cpu() - cpu - idle*time.Since(start).Seconds()
	figures := map[string]float64{
		"CPU-ms/change":    cpu * 1000 / fanoutChanges,
		"B/watcher/change": float64(f.bytes.Load()-bytes) / float64(f.watchers*fanoutChanges),
		"late-ms":          float64(late.Milliseconds()),
		"MiB":              f.metric("process_resident_memory_bytes ") / (1 << 20),
		"idle-CPU-ms/s":    idle * 1000,
	}
	fmt.Fprintf(os.Stderr, "==> %d watchers of a %s: %v\n", f.watchers, kind, figures)
	report(f.b, fmt.Sprintf("%s/watchers=%d", kind, f.watchers), figures)
}

// changedPod is the next pod that changes, in what no policy reads, as most changes do.
func (f *fanout) changedPod() client.Object {
	return f.pod(f.changes%f.pods(), podState{restarts: f.changes})
}

// changedNode is the next Node whose kubelet says that it is alive: in its status it does so at
// least every five minutes.
func (f *fanout) changedNode() client.Object {
	n := f.node(f.changes % f.nodes)
	alive := metav1.NewTime(born.Add(time.Duration(f.changes) * time.Minute))
	n.Status.Conditions[0].LastHeartbeatTime = alive
	return n
}

// change changes objects one by one. It returns how long after the last one all watchers have heard
// of all.
func (f *fanout) change(changed func() client.Object) (late time.Duration) {
	f.b.Helper()
	events := f.events.Load() + int64(f.watchers*fanoutChanges)
	tick := time.NewTicker(time.Second / fanoutRate)
	defer tick.Stop()
	for range fanoutChanges {
		<-tick.C
		f.changes++
		must(f.b, f.lab.Store(f.b.Context(), slices.Values([]client.Object{changed()})))
	}
	last := time.Now()
	await(f.b, "last change at all watchers", func() error {
		if got := f.events.Load(); got < events {
			return fmt.Errorf("%d of %d", got, events)
		}
		return nil
	})
	return time.Since(last)
}

// cpu is how long the API server has been on a CPU, in seconds.
func (f *fanout) cpu() float64 {
	f.b.Helper()
	return f.metric("process_cpu_seconds_total ")
}

func (f *fanout) metric(name string) float64 {
	f.b.Helper()
	response, err := f.metrics.Get(f.config.Host + "/metrics")
	must(f.b, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	must(f.b, err)
	value, err := scrape(text).sum(name)
	must(f.b, err)
	return value
}

// watcher reads objects as an agent does, and keeps none.
type watcher struct {
	events *atomic.Int64
	listed chan struct{}
	once   sync.Once
}

func (w *watcher) Transformer() cache.TransformFunc {
	return func(in any) (any, error) {
		if pod, ok := in.(*corev1.Pod); ok {
			p := policy.PodFrom(pod)
			return &p, nil
		}
		return in, nil
	}
}

func (w *watcher) heard() error { w.events.Add(1); return nil }

func (w *watcher) Add(any) error    { return w.heard() }
func (w *watcher) Update(any) error { return w.heard() }
func (w *watcher) Delete(any) error { return w.heard() }
func (w *watcher) Resync() error    { return nil }
func (w *watcher) Replace([]any, string) error {
	w.once.Do(func() { close(w.listed) })
	return nil
}

// countedConn counts what is read.
type countedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}
