package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/internal/podprogram"
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/test/probe"
)

// Pod is a pod that runs, as its node's Kubelet knows it. It is kept on disk, so it can be asked
// for without the API server.
type Pod struct {
	Name        string            `json:"name"` // namespace/name
	UID         string            `json:"uid"`
	Node        string            `json:"node"`
	HostNetwork bool              `json:"hostNetwork,omitempty"`
	Addresses   []netip.Addr      `json:"addresses"`
	Ports       []podprogram.Port `json:"ports"`
}

// Addr4 returns the pod's first IPv4 address, or the zero Addr.
func (p Pod) Addr4() netip.Addr { return firstAddr(p.Addresses, netip.Addr.Is4) }

// Addr6 returns the pod's first IPv6 address, or the zero Addr.
func (p Pod) Addr6() netip.Addr { return firstAddr(p.Addresses, netip.Addr.Is6) }

func firstAddr(addrs []netip.Addr, match func(netip.Addr) bool) netip.Addr {
	if i := slices.IndexFunc(addrs, match); i >= 0 {
		return addrs[i]
	}
	return netip.Addr{}
}

// NetNS is the name of the namespace that the pod runs in.
func (p Pod) NetNS(lab string) string {
	if p.HostNetwork {
		return namespace.Name(lab, p.Node)
	}
	return namespace.Name(lab, p.UID)
}

// ReadPods returns the pods that are kept in a folder, by name.
func ReadPods(dir string) ([]Pod, error) {
	files, err := filepath.Glob(podFile(dir, "*/*"))
	if err != nil {
		return nil, err
	}
	var pods []Pod
	for _, file := range files {
		pod, err := readPodFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		pods = append(pods, pod)
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, nil
}

// ReadPod returns one of them, by its namespace/name.
func ReadPod(dir, name string) (Pod, error) { return readPodFile(podFile(dir, name)) }

// podFile is where a pod is kept. Neither a namespace nor a pod has an underscore in its name.
func podFile(dir, name string) string {
	return filepath.Join(dir, strings.Replace(name, "/", "_", 1)+".json")
}

func readPodFile(file string) (Pod, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Pod{}, err
	}
	var pod Pod
	if err := json.Unmarshal(text, &pod); err != nil {
		return Pod{}, fmt.Errorf("reading %s: %w", file, err)
	}
	return pod, nil
}

// servedPorts are the ports of all containers and sidecars of a pod, in their order, each once.
func servedPorts(pod *corev1.Pod) []podprogram.Port {
	var ports []podprogram.Port
	for _, container := range runningContainers(pod) {
		for _, p := range container.Ports {
			port := podprogram.Port{Protocol: probe.TCP, Number: uint16(p.ContainerPort)}
			if p.Protocol != "" {
				port.Protocol = probe.Protocol(strings.ToLower(string(p.Protocol)))
			}
			if !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// runningContainers are a pod's sidecars (init containers that are restarted always) and its
// containers.
func runningContainers(pod *corev1.Pod) []corev1.Container {
	var containers []corev1.Container
	for _, container := range pod.Spec.InitContainers {
		if isSidecar(container) {
			containers = append(containers, container)
		}
	}
	return append(containers, pod.Spec.Containers...)
}

func isSidecar(container corev1.Container) bool {
	return container.RestartPolicy != nil &&
		*container.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
