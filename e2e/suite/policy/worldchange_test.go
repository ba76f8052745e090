package policy

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// probedFor is how long kubelet's probes are watched: several times what it takes for a pod to be
// found unready or dead.
const probedFor = 12 * time.Second

// mayReach holds clients to whether they may reach a server's TCP port 80, in every family.
func (w *world) mayReach(ctx context.Context, server string, clients map[string]bool) {
	var cells []*cell
	for client, want := range clients {
		for _, family := range w.cluster.Families {
			c, ok := w.cell(client, server, "tcp", 80, family)
			gomega.ExpectWithOffset(1, ok).
				To(gomega.BeTrue(), "addresses of %s and %s", client, server)
			c.want = want
			cells = append(cells, c)
		}
	}
	w.expect(ctx, cells)
}

// again deletes pods and makes them anew, under the same names.
func (w *world) again(ctx context.Context, members ...member) {
	before := map[string][]netip.Addr{}
	for _, m := range members {
		before[m.name] = w.pods[m.name].Addresses()
	}
	together(members, func(m member) { w.pods[m.name].Delete(ctx) })
	w.start(ctx, members...)
	for _, m := range members {
		for _, addr := range w.pods[m.name].Addresses() {
			gomega.ExpectWithOffset(1, slices.Contains(before[m.name], addr)).
				To(gomega.BeFalse(), "%s has the address %s again, at once", m.name, addr)
		}
	}
}

// label sets a label of a pod or, given no slash, of a namespace; nil takes it away.
func (w *world) label(ctx context.Context, name, key string, value *string) {
	patch, err := json.Marshal(
		map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		if namespace, pod := split(name); strings.Contains(name, "/") {
			_, err = w.cluster.Client.CoreV1().Pods(w.namespaces[namespace]).
				Patch(ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{})
		} else {
			_, err = w.cluster.Client.CoreV1().Namespaces().
				Patch(ctx, w.namespaces[name], types.MergePatchType, patch, metav1.PatchOptions{})
		}
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "labelling %s", name)
}

// probeLiveness has kubelet probe a pod's life as often as its readiness.
func probeLiveness(pod *corev1.Pod) {
	container := &pod.Spec.Containers[0]
	container.LivenessProbe = container.ReadinessProbe.DeepCopy()
}
