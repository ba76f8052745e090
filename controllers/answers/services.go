package answers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/policy"
)

// serviceAt returns the Service that an address belongs to, as one of its ClusterIPs, its external
// IPs or its load balancer's addresses, from the API server; nil if there is none.
func serviceAt(ctx context.Context, from client.Reader, a netip.Addr) (*corev1.Service, error) {
	var all corev1.ServiceList
	if err := from.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("listing Services: %w", err)
	}
	for i := range all.Items {
		s := &all.Items[i]
		texts := slices.Concat(s.Spec.ClusterIPs, s.Spec.ExternalIPs)
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			texts = append(texts, ingress.IP)
		}
		if slices.ContainsFunc(texts, func(text string) bool {
			b, err := netip.ParseAddr(text)
			return err == nil && b.Unmap() == a
		}) {
			return s, nil
		}
	}
	return nil, nil
}

// backendsOf returns the ready endpoints behind a port of a Service, with their own ports, of an
// address's family.
func backendsOf(ctx context.Context, from client.Reader, s *corev1.Service,
	f policy.Flow) ([]netip.AddrPort, error) {
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Port == int32(f.Port) && protocolOf(&p.Protocol) == policy.ProtocolName(f.Protocol)
	})
	if i < 0 {
		return nil, fmt.Errorf("its Service %s/%s has no port %s", s.Namespace, s.Name, portText(f))
	}
	var slicesOf discoveryv1.EndpointSliceList
	err := from.List(ctx, &slicesOf, client.InNamespace(s.Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: s.Name})
	if err != nil {
		return nil,
			fmt.Errorf("listing the EndpointSlices of Service %s/%s: %w", s.Namespace, s.Name, err)
	}
	var out []netip.AddrPort
	for _, slice := range slicesOf.Items {
		for _, p := range slice.Ports {
			if p.Port == nil || *p.Port < 1 || *p.Port > 65535 ||
				protocolOf(p.Protocol) != policy.ProtocolName(f.Protocol) ||
				p.Name != nil && *p.Name != s.Spec.Ports[i].Name {
				continue
			}
			for _, a := range readyAddresses(slice.Endpoints) {
				if a.Is4() == f.Destination.Is4() {
					out = append(out, netip.AddrPortFrom(a, uint16(*p.Port)))
				}
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out), nil
}

func readyAddresses(endpoints []discoveryv1.Endpoint) (out []netip.Addr) {
	for _, e := range endpoints {
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		for _, text := range e.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				out = append(out, a.Unmap())
			}
		}
	}
	return out
}

// protocolOf is a protocol by name; none is TCP.
func protocolOf(p *corev1.Protocol) string {
	if p == nil || *p == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(*p)
}
