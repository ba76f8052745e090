package life

import (
	"context"
	"fmt"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// Labels of pods and their values. A server is a web, which lets friends and visitors in, or open,
// which lets anybody in. A client is a friend or a visitor, who may go to webs only, or a stranger,
// who may go anywhere. So a visitor is kept from the open servers by its own policy, a stranger
// from the webs by theirs, and each has the other servers as its control.
const (
	appLabel, roleLabel = "app", "role"

	web, open                 = "web", "open"
	friend, visitor, stranger = "friend", "visitor", "stranger"
)

// servedPorts is what servers serve, and policies allow.
var servedPorts = []string{"tcp/80", "udp/80"}

// world is a namespace with its policies, and two workers: the spec does its damage to the near
// one.
type world struct {
	cluster   *framework.TheCluster
	namespace string
	near, far string
	webs      []*framework.Pod
	opens     []*framework.Pod
	watchers  []*watcher
}

func newWorld(ctx context.Context, name string) *world {
	cluster := framework.Cluster()
	workers := cluster.Workers(ctx)
	if len(workers) < 2 {
		ginkgo.Skip(fmt.Sprintf("needs two workers, there are %d", len(workers)))
	}
	w := &world{cluster: cluster, namespace: cluster.Namespace(ctx, name, nil),
		near: workers[0].Name, far: workers[1].Name}
	for _, policy := range w.policies() {
		cluster.Apply(ctx, policy)
	}
	return w
}

// policies are those of the namespace.
func (w *world) policies() []*networkingv1.NetworkPolicy {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	everybody := metav1.LabelSelector{}
	roles := func(values ...string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: roleLabel, Operator: metav1.LabelSelectorOpIn, Values: values},
		}}
	}
	webs := metav1.LabelSelector{MatchLabels: map[string]string{appLabel: web}}
	guests := roles(friend, visitor)
	return []*networkingv1.NetworkPolicy{
		w.policy("deny-all",
			networkingv1.NetworkPolicySpec{PodSelector: everybody, PolicyTypes: both}),
		w.webPolicy(),
		w.policy("into-open", networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{appLabel: open}},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{}},
		}),
		w.policy("guests-to-webs", networkingv1.NetworkPolicySpec{
			PodSelector: guests, PolicyTypes: both[1:],
			Egress: []networkingv1.NetworkPolicyEgressRule{
				{To: []networkingv1.NetworkPolicyPeer{{PodSelector: &webs}}}},
		}),
		w.policy("strangers-anywhere", networkingv1.NetworkPolicySpec{
			PodSelector: roles(stranger), PolicyTypes: both[1:],
			Egress: []networkingv1.NetworkPolicyEgressRule{{}},
		}),
	}
}

// webPolicy lets friends and visitors into webs.
func (w *world) webPolicy() *networkingv1.NetworkPolicy {
	tcp, udp, port := corev1.ProtocolTCP, corev1.ProtocolUDP, intstr.FromInt32(80)
	return w.policy("guests-into-webs", networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{appLabel: web}},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{
			From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{roleLabel: friend}}},
				{PodSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{roleLabel: visitor}}},
			},
			Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port},
				{Protocol: &udp, Port: &port}},
		}},
	})
}

func (w *world) policy(name string,
	spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: spec}
}

// server runs a web or an open server on a node, which writes down who gets through to it.
func (w *world) server(ctx context.Context, app, node, suffix string) *framework.Pod {
	pod := w.cluster.Server(ctx, w.namespace, framework.PodOptions{
		Name: app + "-" + suffix, Node: node, Labels: map[string]string{appLabel: app},
		Args: []string{"--report-peers"},
	}, servedPorts...)
	if app == web {
		w.webs = append(w.webs, pod)
	} else {
		w.opens = append(w.opens, pod)
	}
	return pod
}

// service is a Service for all servers of an app, also those that aren't Ready if it says so.
func (w *world) service(ctx context.Context, app string, alsoUnready bool) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: app},
		Spec: corev1.ServiceSpec{
			Selector:                 map[string]string{appLabel: app},
			PublishNotReadyAddresses: alsoUnready,
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80},
			},
		},
	}
	w.cluster.Apply(ctx, service)
	return service
}

// targets are the servers' ports by every address of theirs.
func targets(servers ...*framework.Pod) []string {
	var all []string
	for _, server := range servers {
		for _, addr := range server.Addresses() {
			all = append(all, framework.Target("tcp", addr, 80), framework.Target("udp", addr, 80))
		}
	}
	return all
}

// steadily fails the spec unless f goes on succeeding for some time.
func steadily(ctx context.Context, length time.Duration, f func() error) {
	gomega.ConsistentlyWithOffset(1, ctx, f).WithContext(ctx).WithTimeout(length).
		WithPolling(time.Second).Should(gomega.Succeed())
}
