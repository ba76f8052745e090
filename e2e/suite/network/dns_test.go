package network

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// resolve looks a name up in the pod. It is empty if there is no answer.
func resolve(ctx context.Context, pod *framework.Pod, name string) []netip.Addr {
	var resolved testprogram.Resolved
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		stdout, err := pod.Exec(ctx, "resolve", name)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(json.Unmarshal([]byte(stdout), &resolved)).To(gomega.Succeed(), "%s", stdout)
	}).WithContext(ctx).Should(gomega.Succeed(), "looking up %s in %s", name, pod)
	return resolved.Addresses
}

// manyEndpoints gives a headless Service without a selector that many endpoints of the cluster's
// first family, at which nothing answers (RFC 5737, RFC 3849). Resolvers and servers over UDP agree
// on answers of 1232 bytes, which hold some 40 of them.
func (w *world) manyEndpoints(ctx context.Context, service string, count int) []netip.Addr {
	family := w.cluster.Families[0]
	addr := netip.MustParseAddr("192.0.2.1")
	if family == corev1.IPv6Protocol {
		addr = netip.MustParseAddr("2001:db8::1")
	}
	ready, portNumber, protocol, portName := true, int32(port), corev1.ProtocolTCP, "tcp"
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: service,
			Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressType(family),
		Ports: []discoveryv1.EndpointPort{
			{Name: &portName, Port: &portNumber, Protocol: &protocol}},
	}
	var addrs []netip.Addr
	for ; len(addrs) < count; addr = addr.Next() {
		addrs = append(addrs, addr)
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{addr.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	w.cluster.Apply(ctx, slice)
	return addrs
}
