package lab

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// follow starts what watches the API server in the place of scheduler, kubelets and namespace
// controller.
func (l *Lab) follow() {
	ctx := l.running
	s := &scheduler{lab: l}
	l.background.Go(func() {
		newList := func() client.ObjectList { return &corev1.PodList{} }
		wait.Follow(ctx, l.client, newList, func(pod *corev1.Pod) {
			if pod.Spec.NodeName == "" {
				s.schedule(ctx, pod)
			} else if node := l.Node(pod.Spec.NodeName); node != nil {
				node.kubelet.Update(pod)
			}
		}, func(pod *corev1.Pod) {
			if node := l.Node(pod.Spec.NodeName); node != nil {
				node.kubelet.Forget(pod)
			}
		})
	})
	l.background.Go(func() {
		newList := func() client.ObjectList { return &corev1.NamespaceList{} }
		ending := map[types.UID]bool{}
		wait.Follow(ctx, l.client, newList, func(namespace *corev1.Namespace) {
			if namespace.DeletionTimestamp != nil && !ending[namespace.UID] {
				ending[namespace.UID] = true
				l.background.Go(func() { l.emptyNamespace(ctx, namespace.Name) })
			}
		}, func(namespace *corev1.Namespace) { delete(ending, namespace.UID) })
	})
}

// scheduler binds pods to nodes, round robin among those that their nodeSelector allows. Affinity,
// taints and resources don't matter.
type scheduler struct {
	lab  *Lab
	next int
}

func (s *scheduler) schedule(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil || len(pod.Spec.SchedulingGates) > 0 {
		return
	}
	nodes := s.lab.Nodes()
	for i := range nodes {
		node := nodes[(s.next+i)%len(nodes)]
		if !labels.SelectorFromSet(pod.Spec.NodeSelector).
			Matches(labels.Set(s.lab.nodeState(node.name).labels())) {
			continue
		}
		s.next += i + 1
		binding := &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: node.name},
		}
		for {
			err := s.lab.client.SubResource("binding").Create(ctx, pod, binding)
			if err == nil || wait.IsFinal(err) || !wait.Pause(ctx, wait.RetryEvery) {
				return
			}
		}
	}
	_, _ = fmt.Fprintf(s.lab.options.Progress, "pod %s: no node matches its nodeSelector\n",
		client.ObjectKeyFromObject(pod).String())
}
