package life

import (
	"context"
	"fmt"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// newcomerPatience is how long a pod may take to run to its end, when its node starts many.
const newcomerPatience = 4 * time.Minute

// newcomer creates a pod whose first instructions connect to where its role must not get, and to
// where it may. It ends by itself.
func (w *world) newcomer(ctx context.Context, role, node string) *framework.Pod {
	return w.cluster.CreatePod(ctx, w.namespace, framework.PodOptions{
		Name: "new-" + role + "-" + rand.String(6), Node: node,
		Labels: map[string]string{roleLabel: role}, Args: w.firstArgs(role),
		Mutate: func(pod *corev1.Pod) {
			pod.Spec.RestartPolicy = corev1.RestartPolicyNever
			second := int64(1)
			pod.Spec.TerminationGracePeriodSeconds = &second
		},
	})
}

// firstArgs are the test program's arguments for a pod of this role to begin with.
func (w *world) firstArgs(role string) []string {
	denied, allowed := w.opens, w.webs
	if role == stranger {
		denied, allowed = w.webs, w.opens
	}
	args := []string{"first"}
	for _, target := range targets(denied...) {
		args = append(args, "--denied", target)
	}
	for _, target := range targets(allowed...) {
		args = append(args, "--control", target)
	}
	return args
}

// ended waits until a newcomer has run, and returns what was wrong with it.
func (w *world) ended(ctx context.Context, pod *framework.Pod) []string {
	gomega.EventuallyWithOffset(1, ctx, func() error {
		switch object := pod.Object(ctx); object.Status.Phase {
		case corev1.PodSucceeded:
			return nil
		case corev1.PodFailed:
			return gomega.StopTrying(fmt.Sprintf("it failed: %+v", object.Status))
		default:
			return fmt.Errorf("it is %s", object.Status.Phase)
		}
	}).WithContext(ctx).WithTimeout(newcomerPatience).
		Should(gomega.Succeed(), "%s runs to its end", pod)
	return wrongAtFirst(pod.Name, pod.Logs(ctx))
}

// wrongAtFirst says what was wrong with the outcome of "first" in a pod's log: what was denied has
// passed, or it wasn't tried.
func wrongAtFirst(name, log string) []string {
	var wrong []string
	outcomes := 0
	for _, report := range testprogram.ReadLog(log) {
		if report.First == nil {
			continue
		}
		outcomes++
		for _, tried := range report.First.Denied {
			if !tried.Kind.Denied() || tried.Attempts < 10 {
				wrong = append(wrong, fmt.Sprintf("%s: denied, but after %d attempts and %.2f s %s",
					name, tried.Attempts, tried.Seconds, tried.Result))
			}
		}
		for _, tried := range report.First.Control {
			if !tried.OK {
				wrong = append(wrong,
					fmt.Sprintf("%s: control, but after %d attempts and %.2f s %s", name,
						tried.Attempts, tried.Seconds, tried.Result))
			}
		}
	}
	if outcomes == 0 {
		wrong = append(wrong, fmt.Sprintf("%s wrote no outcome down: %q", name, log))
	}
	return wrong
}

// discard deletes a pod and doesn't wait.
func (w *world) discard(ctx context.Context, pod *framework.Pod) {
	gomega.EventuallyWithOffset(1, ctx, func() error {
		err := w.cluster.Client.CoreV1().Pods(pod.Namespace).
			Delete(ctx, pod.Name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "deleting %s", pod)
}
