package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// Annotations on pods that a Kubelet knows.
const (
	// FirstConnectAnnotation makes a connection attempt the first thing that the pod does:
	// "tcp://10.244.1.2:80". It starts a new connection every 20 ms for a second, until one
	// succeeds.
	FirstConnectAnnotation = "lab.sluice.network/first-connect"
	// FirstConnectResultAnnotation is written when that is over: a FirstConnect in JSON.
	FirstConnectResultAnnotation = "lab.sluice.network/first-connect-result"
	// RunForAnnotation has the pod end by itself after so long ("2s"), with phase Succeeded.
	RunForAnnotation = "lab.sluice.network/run-for"
	// LingerAnnotation has the pod go on for so long ("2s") when it is deleted, but not beyond its
	// grace period.
	LingerAnnotation = "lab.sluice.network/linger"
)

const (
	firstBackOff = 250 * time.Millisecond // before a start is tried again; doubles
	maxBackOff   = 4 * time.Second
)

// worker brings one pod through its life, as a kubelet's pod worker does.
type worker struct {
	kubelet *Kubelet
	uid     types.UID
	status  podStatus

	alive context.Context    // ends when the pod is to end
	kill  context.CancelFunc // ends alive

	mu   sync.Mutex
	pod  *corev1.Pod // the newest object
	gone bool        // the object isn't there any more
}

func newWorker(ctx context.Context, k *Kubelet, pod *corev1.Pod) *worker {
	w := &worker{kubelet: k, uid: pod.UID, pod: pod}
	w.alive, w.kill = context.WithCancel(ctx)
	return w
}

// update takes a newer object. One that is being deleted ends the pod.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pod = pod
	if pod.DeletionTimestamp != nil {
		w.kill()
	}
}

// forget ends the pod at once: its object is gone.
func (w *worker) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	w.kill()
}

func (w *worker) object() (pod *corev1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone
}

// run returns when the pod and its object are gone, or when ctx, the lab's, ends; then Lab.Down
// removes what is left.
func (w *worker) run(ctx context.Context) {
	defer w.kill()
	for lost := true; lost; {
		box := w.start()
		if box == nil {
			break
		}
		lost = w.supervise(box)
		if ctx.Err() != nil {
			return
		}
		w.stop(ctx, box)
	}
	if ctx.Err() != nil {
		return
	}
	<-w.alive.Done() // a pod that has ended by itself keeps its object until somebody deletes it
	w.deleteObject(ctx)
}

// start sets the pod up, again and again until it works. It returns nil if the pod is to end
// before.
func (w *worker) start() *sandbox {
	for backOff := firstBackOff; w.alive.Err() == nil; backOff = min(2*backOff, maxBackOff) {
		pod, _ := w.object()
		box, err := newSandbox(w.alive, w.kubelet, pod)
		if err == nil {
			return box
		}
		if w.alive.Err() == nil {
			w.kubelet.log.Error(err, "pod doesn't start", "pod",
				client.ObjectKeyFromObject(pod).String(), "retryIn", backOff)
			w.status.message = err.Error()
			w.writeStatus(w.alive)
		}
		wait.Pause(w.alive, backOff)
	}
	return nil
}

// supervise reports a running pod until it is to end, or has ended, or was lost because its node
// went off.
func (w *worker) supervise(box *sandbox) (lost bool) {
	pod, _ := w.object()
	w.kubelet.log.Info("pod runs", "pod", client.ObjectKeyFromObject(pod).String(), "addresses",
		box.pod.Addresses)
	w.status.running(box)
	probers := newProbers(namespace.Dialer(w.kubelet.space()), pod, box.pod.Addresses)
	var runFor <-chan time.Time
	if d, err := time.ParseDuration(pod.Annotations[RunForAnnotation]); err == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		runFor = timer.C
	}
	for {
		w.status.ready = probers.run(w.alive)
		next := probers.next()
		if !w.writeStatus(w.alive) {
			next = min(next, wait.RetryEvery)
		}
		select {
		case <-w.alive.Done():
			return false
		case first := <-box.firstConnect:
			w.annotate(w.alive, FirstConnectResultAnnotation, first)
		case <-runFor:
			box.process.Terminate(w.alive)
		case <-box.process.Exited:
			if box.power.Err() != nil {
				w.status.ready = nil
				w.writeStatus(w.alive)
				return true
			}
			w.status.ended(box.process.Err)
			for !w.writeStatus(w.alive) && wait.Pause(w.alive, wait.RetryEvery) {
			}
			return false
		case <-time.After(next):
		}
	}
}

// stop ends what runs in the pod and takes its network away.
func (w *worker) stop(ctx context.Context, box *sandbox) {
	pod, gone := w.object()
	grace := 30 * time.Second
	if pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	}
	if linger, err := time.ParseDuration(
		pod.Annotations[LingerAnnotation],
	); err == nil && !gone &&
		box.process.Running() {
		wait.Pause(ctx, min(linger, grace))
	}
	ending, cancel := context.WithTimeout(ctx, max(grace, time.Second))
	defer cancel()
	box.process.Terminate(ending)
	for backOff := firstBackOff; ; backOff = min(2*backOff, maxBackOff) {
		err := box.remove(ctx)
		if err == nil {
			w.kubelet.log.Info("pod is gone", "pod", client.ObjectKeyFromObject(pod).String())
			return
		}
		w.kubelet.log.Error(err, "pod doesn't go", "pod", client.ObjectKeyFromObject(pod).String(),
			"retryIn", backOff)
		if !wait.Pause(ctx, backOff) {
			return
		}
	}
}

// deleteObject removes the object of a pod that has ended, as a kubelet does: its deletion has
// waited for that.
func (w *worker) deleteObject(ctx context.Context) {
	for {
		pod, gone := w.object()
		if gone {
			return
		}
		err := w.kubelet.options.Client.Delete(ctx, pod, client.GracePeriodSeconds(0),
			client.Preconditions{UID: &w.uid})
		if err == nil || wait.IsFinal(err) || !wait.Pause(ctx, wait.RetryEvery) {
			return
		}
	}
}

// writeStatus writes what has changed in the pod's status. It says whether the API server knows it
// now.
func (w *worker) writeStatus(ctx context.Context) bool {
	pod, gone := w.object()
	status, changed := w.status.next(pod, w.kubelet.options.Addrs())
	if gone || !changed {
		return true
	}
	err := w.patch(ctx, pod, true, map[string]any{"status": status})
	if err != nil && !wait.IsFinal(err) {
		return false
	}
	w.status.written = status
	return true
}

// annotate sets an annotation to value, in JSON, and tries until it is done.
func (w *worker) annotate(ctx context.Context, name string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		w.kubelet.log.Error(err, "annotation can't be written", "annotation", name)
		return
	}
	for {
		pod, _ := w.object()
		err := w.patch(
			ctx,
			pod,
			false,
			map[string]any{
				"metadata": map[string]any{"annotations": map[string]string{name: string(text)}},
			},
		)
		if err == nil || wait.IsFinal(err) || !wait.Pause(ctx, wait.RetryEvery) {
			return
		}
	}
}

// patch merges into the pod's object, provided that it is this pod's and not a later one's of the
// same name.
func (w *worker) patch(
	ctx context.Context, pod *corev1.Pod, status bool, change map[string]any,
) error {
	metadata, ok := change["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		change["metadata"] = metadata
	}
	metadata["uid"] = w.uid
	text, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("writing pod %s: %w", client.ObjectKeyFromObject(pod).String(), err)
	}
	patch := client.RawPatch(types.MergePatchType, text)
	target := &corev1.Pod{}
	target.Namespace, target.Name = pod.Namespace, pod.Name
	if status {
		return w.kubelet.options.Client.Status().Patch(ctx, target, patch)
	}
	return w.kubelet.options.Client.Patch(ctx, target, patch)
}
