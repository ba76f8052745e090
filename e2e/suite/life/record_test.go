package life

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// record is what has become worse with Nodes and with the endpoints of Services since it began.
type record struct {
	cluster *framework.TheCluster
	began   time.Time
	stop    context.CancelFunc

	mu      sync.Mutex
	entries []entry
}

// entry is one thing that happened to one object: a node's name, or a Service's namespace/name.
type entry struct{ object, what string }

// startRecord begins a record of all Nodes, and of the EndpointSlices of these namespaces. It ends
// with the spec.
func startRecord(ctx context.Context, cluster *framework.TheCluster, namespaces ...string) *record {
	r := &record{cluster: cluster, began: time.Now()}
	lasting, stop := context.WithCancel(context.Background())
	r.stop = stop
	factory := informers.NewSharedInformerFactory(cluster.Client, 0)
	nodes, slicesOf := factory.Core().V1().Nodes().Informer(),
		factory.Discovery().V1().EndpointSlices().Informer()
	_, err := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			r.nodeChanged(before.(*corev1.Node), after.(*corev1.Node))
		},
		DeleteFunc: func(object any) {
			if node, ok := object.(*corev1.Node); ok {
				r.add(node.Name, "deleted")
			}
		},
	})
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	_, err = slicesOf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			r.sliceChanged(namespaces, before.(*discoveryv1.EndpointSlice),
				after.(*discoveryv1.EndpointSlice))
		},
		DeleteFunc: func(object any) {
			if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
				r.sliceChanged(namespaces, slice, &discoveryv1.EndpointSlice{})
			}
		},
	})
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	factory.Start(lasting.Done())
	ginkgo.DeferCleanup(func() {
		stop()
		factory.Shutdown()
	})
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		gomega.ExpectWithOffset(1, synced).To(gomega.BeTrue(), "%s are listed", kind)
	}
	return r
}

func (r *record) nodeChanged(before, after *corev1.Node) {
	if framework.NodeReady(before) && !framework.NodeReady(after) {
		r.add(after.Name, "left Ready: "+conditionsOf(after))
	}
	for _, taint := range after.Spec.Taints {
		isNew := !slices.ContainsFunc(before.Spec.Taints, func(was corev1.Taint) bool {
			return was.MatchTaint(&taint)
		})
		if isNew && strings.HasPrefix(taint.Key, "node.kubernetes.io/") {
			r.add(after.Name, fmt.Sprintf("was tainted %s:%s", taint.Key, taint.Effect))
		}
	}
}

func conditionsOf(node *corev1.Node) string {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return fmt.Sprintf("%s: %s: %s", condition.Status, condition.Reason, condition.Message)
		}
	}
	return "no such condition"
}

func (r *record) sliceChanged(namespaces []string, before, after *discoveryv1.EndpointSlice) {
	if !slices.Contains(namespaces, before.Namespace) {
		return
	}
	stay := map[string]bool{}
	for _, endpoint := range after.Endpoints {
		stay[endpointName(&endpoint)] = isReady(&endpoint)
	}
	for _, endpoint := range before.Endpoints {
		if name := endpointName(&endpoint); isReady(&endpoint) && !stay[name] {
			r.add(before.Namespace+"/"+before.Labels[discoveryv1.LabelServiceName],
				"lost the endpoint "+name)
		}
	}
}

func endpointName(endpoint *discoveryv1.Endpoint) string {
	name := strings.Join(endpoint.Addresses, ",")
	if endpoint.TargetRef != nil {
		name += " " + endpoint.TargetRef.Name
	}
	return name
}

func isReady(endpoint *discoveryv1.Endpoint) bool {
	return endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
}

func (r *record) add(object, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, entry{object, time.Now().UTC().Format("15:04:05.000 ") + what})
}

// judge fails the spec if an object has become worse, but for those that may. A node may have left
// Ready while the API server was away: so its condition must be older than the record, too.
func (r *record) judge(ctx context.Context, may ...string) {
	var wrong []string
	for _, node := range r.cluster.Nodes(ctx) {
		for _, condition := range node.Status.Conditions {
			// The time is cut to the second.
			if condition.Type == corev1.NodeReady && condition.LastTransitionTime.After(r.began) &&
				!slices.Contains(may, node.Name) {
				wrong = append(wrong, fmt.Sprintf("%s: changed Ready at %s, now %s", node.Name,
					condition.LastTransitionTime.UTC().Format(time.TimeOnly), conditionsOf(&node)))
			}
		}
		if !framework.NodeReady(&node) && !slices.Contains(may, node.Name) {
			wrong = append(wrong, node.Name+" isn't Ready: "+conditionsOf(&node))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, entry := range r.entries {
		if !slices.Contains(may, entry.object) {
			wrong = append(wrong, entry.object+": "+entry.what)
		} else {
			ginkgo.GinkgoWriter.Printf("as may be: %s: %s\n", entry.object, entry.what)
		}
	}
	gomega.ExpectWithOffset(1, wrong).To(gomega.BeEmpty(),
		"what became of nodes and endpoints since %s", r.began.UTC().Format(time.TimeOnly))
}
