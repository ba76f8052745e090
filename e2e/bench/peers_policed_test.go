package bench

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
)

// policed is a cluster of one node, whose agent enforces policies.
type policed struct {
	name string
	lab  *lab.Lab
	pid  func() int // of the agent
	pods int        // so far, but for clients and servers

	flows []*flow // between each client and each server
}

const (
	policedSpace   = "peers"
	policedEnds    = 3   // clients, and servers
	policedLocally = 100 // pods on the node
	policedPort    = 80  // UDP
)

func policedBySluice(b *testing.B) *policed {
	b.Helper()
	l := newLab(b, "peer-a", lab.Options{Nodes: 1, Families: lab.IPv4})
	return newPoliced(b, "sluice", l, l.Nodes()[0].AgentPID)
}

func policedByKubeRouter(b *testing.B, program string) *policed {
	b.Helper()
	l := newLab(b, "peer-b", lab.Options{Nodes: 1, Families: lab.IPv4, NoAgent: true})
	d := startKubeRouter(b, l, l.Nodes()[0], l.Nodes()[0].Name(), program)
	return newPoliced(b, "kube-router", l, func() int { return d.pid })
}

// startKubeRouter has kube-router enforce policies and do nothing else.
func startKubeRouter(b *testing.B, l *lab.Lab, where place, node, program string) *daemon {
	b.Helper()
	return startDaemon(b, l, where, program, nil, "--run-firewall=true", "--run-router=false",
		"--run-service-proxy=false", "--metrics-port=0", "--kubeconfig="+l.Kubeconfig(),
		"--hostname-override="+node)
}

// newPoliced has clients and servers on the node, and a policy that isolates the servers.
func newPoliced(b *testing.B, name string, l *lab.Lab, pid func() int) *policed {
	b.Helper()
	c := &policed{name: name, lab: l, pid: pid}
	must(b, l.Nodes()[0].Do(forgetSoon))
	must(b, l.Client().Create(b.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: policedSpace}}))
	var names []string
	for i := range policedEnds {
		for _, app := range []string{"client", "server"} {
			names = append(names, c.createPod(b, fmt.Sprintf("%s-%d", app, i), app))
		}
	}
	must(b, l.WaitReady(b.Context(), names...))
	for i := range policedEnds {
		from := &sender{lab: l, name: fmt.Sprintf("%s/client-%d", policedSpace, i)}
		for j := range policedEnds {
			server, err := l.Pod(fmt.Sprintf("%s/server-%d", policedSpace, j))
			must(b, err)
			f := &flow{from: from, to: netip.AddrPortFrom(server.Addr4(), policedPort)}
			must(b, f.renew())
			b.Cleanup(f.close)
			_, err = f.awaitAnswer() // without a policy
			must(b, err)
			c.flows = append(c.flows, f)
		}
	}
	must(b, l.Client().Create(b.Context(), policyFor("closed", "server")))
	for _, f := range c.flows {
		_, err := f.awaitDenial()
		must(b, err)
	}
	return c
}

// forgetSoon has a namespace's connection tracking forget a flow of many packets as soon as others.
func forgetSoon() error {
	return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", []byte("30"), 0)
}

// grow makes more of the other pods, up to a number, and their policies.
func (c *policed) grow(b *testing.B, pods int) {
	b.Helper()
	ctx, p := b.Context(), population{nodes: 30}
	var names []string
	var elsewhere, policies []client.Object
	for i := c.pods; i < pods; i++ {
		app := fmt.Sprintf("app-%d", i)
		if i < policedLocally {
			names = append(names, c.createPod(b, app, app))
		} else {
			pod := p.pod(i, podState{})
			pod.Namespace, pod.Labels = policedSpace, map[string]string{"app": app}
			elsewhere = append(elsewhere, pod)
		}
		policy := policyFor(app, app, fmt.Sprintf("app-%d", (i+1)%pods))
		policy.ObjectMeta = p.meta("policy", policedSpace, app, nil)
		policies = append(policies, policy)
	}
	c.pods = pods
	must(b, c.lab.Store(ctx, slices.Values(append(elsewhere, policies...))))
	if len(names) > 0 { // none would mean all, of which those elsewhere never are
		must(b, c.lab.WaitReady(ctx, names...))
	}
}

// createPod makes a pod on the node, and returns its name with the namespace.
func (c *policed) createPod(b *testing.B, name, app string) string {
	b.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: policedSpace, Name: name,
			Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{NodeName: c.lab.Nodes()[0].Name(),
			Containers: []corev1.Container{{Name: "main", Image: "none",
				Ports: []corev1.ContainerPort{
					{ContainerPort: policedPort, Protocol: corev1.ProtocolUDP}}}}},
	}
	must(b, c.lab.Client().Create(b.Context(), pod))
	return pod.Namespace + "/" + pod.Name
}

// policyFor isolates an application's pods, and lets others' connect.
func policyFor(name, app string, from ...string) *networkingv1.NetworkPolicy {
	label := func(app string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: policedSpace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: label(app),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
	udp, port := corev1.ProtocolUDP, intstr.FromInt32(policedPort)
	for _, app := range from {
		selector := label(app)
		policy.Spec.Ingress = append(policy.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  []networkingv1.NetworkPolicyPeer{{PodSelector: &selector}},
			Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &port}},
		})
	}
	return policy
}
