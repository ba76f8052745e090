package kubelet

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Annotations on pods that container runtimes know: bits per second, as a quantity such as "10M".
const (
	IngressBandwidthAnnotation = "kubernetes.io/ingress-bandwidth"
	EgressBandwidthAnnotation  = "kubernetes.io/egress-bandwidth"
)

// What a bandwidth may be, as for a kubelet.
var (
	minBandwidth = resource.MustParse("1k")
	maxBandwidth = resource.MustParse("1P")
)

// portMapping and bandwidth are what the CNI capabilities of these names carry.
type (
	portMapping struct {
		HostPort      int32  `json:"hostPort"`
		ContainerPort int32  `json:"containerPort"`
		Protocol      string `json:"protocol"`
		HostIP        string `json:"hostIP"`
	}
	bandwidth struct {
		IngressRate  uint64 `json:"ingressRate,omitempty"`
		IngressBurst uint64 `json:"ingressBurst,omitempty"`
		EgressRate   uint64 `json:"egressRate,omitempty"`
		EgressBurst  uint64 `json:"egressBurst,omitempty"`
	}
)

// capabilityArgs is what containerd passes to plugins that ask for it. Its bursts are that large.
func capabilityArgs(pod *corev1.Pod) (map[string]any, error) {
	args := map[string]any{}
	var ports []portMapping
	for _, container := range runningContainers(pod) {
		for _, p := range container.Ports {
			if p.HostPort > 0 {
				protocol := strings.ToLower(string(p.Protocol))
				ports = append(
					ports,
					portMapping{
						HostPort:      p.HostPort,
						ContainerPort: p.ContainerPort,
						Protocol:      protocol,
						HostIP:        p.HostIP,
					},
				)
			}
		}
	}
	if len(ports) > 0 {
		args["portMappings"] = ports
	}
	ingress, err := bandwidthOf(pod, IngressBandwidthAnnotation)
	if err != nil {
		return nil, err
	}
	egress, err := bandwidthOf(pod, EgressBandwidthAnnotation)
	if err != nil {
		return nil, err
	}
	limits := bandwidth{IngressRate: ingress, EgressRate: egress}
	if ingress > 0 {
		limits.IngressBurst = math.MaxUint32
	}
	if egress > 0 {
		limits.EgressBurst = math.MaxUint32
	}
	if limits != (bandwidth{}) {
		args["bandwidth"] = limits
	}
	return args, nil
}

// bandwidthOf is the value of an annotation, or 0 if there is none.
func bandwidthOf(pod *corev1.Pod, annotation string) (uint64, error) {
	text, found := pod.Annotations[annotation]
	if !found {
		return 0, nil
	}
	value, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("annotation %s: %q: %w", annotation, text, err)
	}
	if value.Cmp(minBandwidth) < 0 || value.Cmp(maxBandwidth) > 0 {
		return 0, fmt.Errorf("annotation %s: %q: expected %s to %s", annotation, text,
			&minBandwidth, &maxBandwidth)
	}
	return uint64(value.Value()), nil
}
