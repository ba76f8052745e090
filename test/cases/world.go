package cases

import (
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Ports that every pod and every host of the world serves.
var (
	TCPPorts  = []uint16{80, 81, 8080}
	UDPPorts  = []uint16{80, 81}
	SCTPPorts = []uint16{80}
)

// NodeName is the node on which all pods of the world run.
const NodeName = "node"

// Hosts are the ends of flows that are no pods, with their addresses.
var Hosts = map[string][2]string{
	"out":    {"192.0.2.10", "2001:db8:1::10"},
	"out2":   {"192.0.2.20", "2001:db8:1::20"},
	NodeName: {"198.51.100.1", "2001:db8:2::1"},
}

// pod is a pod of the world in short.
type pod struct {
	namespace, name string
	labels          map[string]string
	ports           []corev1.ContainerPort
}

var pods = []pod{
	{"dev", "web", map[string]string{"app": "web", "tier": "front"}, []corev1.ContainerPort{
		{Name: "http", ContainerPort: 80, Protocol: corev1.ProtocolTCP},
		{Name: "query", ContainerPort: 80, Protocol: corev1.ProtocolUDP},
	}},
	{"dev", "db", map[string]string{"app": "db"}, []corev1.ContainerPort{
		{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP},
		{Name: "query", ContainerPort: 81, Protocol: corev1.ProtocolUDP},
		{Name: "signal", ContainerPort: 80, Protocol: corev1.ProtocolSCTP},
	}},
	{"prod", "web", map[string]string{"app": "web", "empty": ""}, []corev1.ContainerPort{
		{Name: "http", ContainerPort: 81}, // protocol left to its default
	}},
	{"ops", "probe", nil, nil},
}

// Namespaces returns the namespaces: dev and prod are labelled env, ops is not.
func Namespaces() []*corev1.Namespace {
	var out []*corev1.Namespace
	for name, labels := range map[string]map[string]string{
		"dev": {"env": "dev"}, "prod": {"env": "prod"}, "ops": nil,
	} {
		all := map[string]string{corev1.LabelMetadataName: name}
		maps.Copy(all, labels)
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all}})
	}
	return out
}

// Pods returns the pods: dev/web, dev/db, prod/web and ops/probe, running and with an address of
// each family.
func Pods() []*corev1.Pod {
	var out []*corev1.Pod
	for i, p := range pods {
		ip4, ip6 := fmt.Sprintf("10.244.1.%d", 10+i), fmt.Sprintf("fd00:10:244:1::%d", 10+i)
		out = append(out, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: p.namespace, Name: p.name, Labels: p.labels,
				UID:               types.UID(p.namespace + "-" + p.name),
				CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000+int64(i), 0)),
			},
			Spec: corev1.PodSpec{
				NodeName:   NodeName,
				Containers: []corev1.Container{{Name: "main", Ports: p.ports}},
			},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIP: ip4,
				PodIPs: []corev1.PodIP{{IP: ip4}, {IP: ip6}},
			},
		})
	}
	return out
}

// Node returns the node of the pods.
func Node() *corev1.Node {
	var addresses []corev1.NodeAddress
	for _, a := range Hosts[NodeName] {
		addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: NodeName},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
		Status:     corev1.NodeStatus{Addresses: addresses},
	}
}

// Addr returns the address of an end of a flow in this world.
func Addr(name string, family int) string {
	i := 0
	if family == 6 {
		i = 1
	}
	if h, ok := Hosts[name]; ok {
		return h[i]
	}
	for _, p := range Pods() {
		if p.Namespace+"/"+p.Name == name {
			return p.Status.PodIPs[i].IP
		}
	}
	panic("no such end of a flow: " + name)
}
