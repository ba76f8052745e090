package cluster

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/policy"
)

// BenchmarkMemory is what a pod of a large cluster costs in memory, everything that is kept of it
// included: 1,000 nodes with 30 dual-stack pods each, of 1,500 Deployments, or of as many
// StatefulSets, whose pods have a label of their own.
func BenchmarkMemory(b *testing.B) {
	b.Run("Deployments", func(b *testing.B) { benchMemory(b, false) })
	b.Run("StatefulSets", func(b *testing.B) { benchMemory(b, true) })
}

func benchMemory(b *testing.B, ownLabel bool) {
	b.Helper()
	const nodes, podsPerNode, deployments = 1000, 30, 1500
	for b.Loop() {
		before := heap()
		c := New(Options{Node: "node-0"})
		for n := range nodes {
			c.SetNode(largeNode(n))
		}
		for d := range deployments {
			c.SetNamespace(fmt.Sprintf("team-%d", d/5), map[string]string{"stage": "prod"})
		}
		c.Take()
		empty := heap()
		for i := range nodes * podsPerNode {
			pod := largePod(i/podsPerNode, i%podsPerNode, i%deployments)
			if ownLabel {
				pod.Labels["apps.kubernetes.io/pod-name"] = pod.Name
			}
			c.SetPod(policy.PodFrom(pod))
		}
		c.Take()
		b.ReportMetric(float64(heap()-empty)/(nodes*podsPerNode), "B/pod")
		b.ReportMetric(float64(empty-before)/nodes, "B/node")
		runtime.KeepAlive(c)
	}
}

// heap is what the program keeps, in bytes.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and weak pointers held goes by the second
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func largeNode(n int) policy.Node {
	return policy.Node{
		Name:      fmt.Sprintf("node-%d", n),
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, byte(n >> 8), byte(n)})},
		PodCIDRs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: byte(n >> 8), 7: byte(n)}), 64),
		},
	}
}

// largePod is as a decoder makes it: no text of it is shared.
func largePod(node, onNode, deployment int) *corev1.Pod {
	team, app := fmt.Sprintf("team-%d", deployment/5), fmt.Sprintf("app-%d", deployment)
	labels := map[string]string{}
	for k, v := range map[string]string{
		"app.kubernetes.io/name": app, "app.kubernetes.io/instance": app + "-" + team,
		"app.kubernetes.io/part-of": team, "app.kubernetes.io/version": "v1.2.0",
		"app.kubernetes.io/managed-by": "Helm",
		"pod-template-hash":            fmt.Sprintf("%010d", deployment*7919),
	} {
		labels[strings.Clone(k)] = strings.Clone(v)
	}
	ips := []corev1.PodIP{
		{IP: fmt.Sprintf("10.%d.%d.%d", node>>8, node&255, onNode+2)},
		{IP: fmt.Sprintf("fd00:0:0:%x::%x", node, onNode+2)}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: team, Name: fmt.Sprintf("%s-5d8f9c7b6d-%02d%03d", app, onNode, node),
			UID:    types.UID(fmt.Sprintf("%08d-0000-4000-8000-%012d", node, onNode)),
			Labels: labels, CreationTimestamp: metav1.Unix(int64(1_800_000_000+node), 0)},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", node),
			Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{
				Name: strings.Clone("http"), ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ips[0].IP, PodIPs: ips},
	}
}
