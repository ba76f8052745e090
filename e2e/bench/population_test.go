package bench

import (
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// population is the objects of a large cluster of which one node is real, in the sizes and with the
// labels of real ones. Everything about an object follows from its number, so that no object needs
// to be kept. A population has 30 pods for each node, three namespaces for each five nodes, and two
// policies.
//
// Each namespace has pods of five of the 300 applications. Policies have the shape of kube-burner's
// workload for network policies: five ports and five ranges of ports, to or from the pods of five
// namespaces with one of five values of a label, and five blocks of addresses, in either direction.
type population struct{ nodes int }

const (
	podsPerNode  = 30
	applications = 300
	appsPerSpace = 5
	podNumbers   = 50 // values of the label that policies select by
	perPolicy    = 5
)

func (p population) namespaces() int { return max(appsPerSpace+1, p.nodes*3/5) }
func (p population) pods() int       { return p.nodes * podsPerNode }
func (p population) policies() int   { return max(1, p.nodes*2/5) }

// largeNetConf has ranges for all nodes of a population of up to 19,000 nodes, and for those of a
// lab.
const largeNetConf = `{"Network": "10.128.0.0/9", "EnableIPv6": true,
"IPv6Network": "fd00:10:244::/48", "Backend": {"Type": "vxlan"}}`

// born is when all objects were made: the API server shows it, and nobody depends on it.
var born = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

// meta is what all objects have. Its managed fields are as long as those of a real one.
func (p population) meta(kind, namespace, name string, labels map[string]string) metav1.ObjectMeta {
	fields := func(manager, subresource string, repeat int) metav1.ManagedFieldsEntry {
		const field = `"f:some-field":{".":{},"f:another":{}},`
		raw := `{"f:spec":{` + strings.Repeat(field, repeat) + `"f:last":{}}}`
		return metav1.ManagedFieldsEntry{Manager: manager, Operation: "Update", APIVersion: "v1",
			Time: &born, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(raw),
			Subresource: subresource}
	}
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels,
		UID: uidOf(kind + "/" + namespace + "/" + name), CreationTimestamp: born,
		ManagedFields: []metav1.ManagedFieldsEntry{
			fields("kube-controller-manager", "", 25), fields("kubelet", "status", 25),
		}}
}

// uidOf is one of the form that the API server makes.
func uidOf(what string) types.UID {
	return types.UID(uuid.NewSHA1(uuid.NameSpaceURL, []byte(what)).String())
}

func nodeName(i int) string { return fmt.Sprintf("ip-node-%05d.example.internal", i) }

// node is where lab.CreateNodeObjects would put it on the underlay, with a /24 and a /64 for pods.
func (p population) node(i int) *corev1.Node {
	addr4 := netip.AddrFrom4([4]byte{192, 168, byte(1 + i/250), byte(1 + i%250)})
	addr6 := fmt.Sprintf("fd00:192:168::1:%x", i)
	cidrs := []string{fmt.Sprintf("10.%d.%d.0/24", 128+i>>8, i&255),
		fmt.Sprintf("fd00:10:244:%x::/64", 0x1000+i)}
	name := nodeName(i)
	node := &corev1.Node{ObjectMeta: p.meta("node", "", name, map[string]string{
		"beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
		"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
		"node.kubernetes.io/instance-type": "m7.2xlarge",
		"topology.kubernetes.io/region":    "eu-1",
		"topology.kubernetes.io/zone":      fmt.Sprintf("eu-1%c", 'a'+i%3),
		"example.com/pool":                 fmt.Sprintf("pool-%d", i%20),
	})}
	node.Spec = corev1.NodeSpec{PodCIDR: cidrs[0], PodCIDRs: cidrs,
		ProviderID: "cloud:///eu-1/" + name}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name},
		{Type: corev1.NodeInternalIP, Address: addr4.String()},
		{Type: corev1.NodeInternalIP, Address: addr6}}
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure,
		corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		status := corev1.ConditionFalse
		if t == corev1.NodeReady {
			status = corev1.ConditionTrue
		}
		node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{Type: t,
			Status: status, Reason: "KubeletSaysSo", Message: "kubelet says that it is so",
			LastHeartbeatTime: born, LastTransitionTime: born})
	}
	for image := range 50 { // as many as a kubelet reports
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{SizeBytes: 1e8,
			Names: []string{fmt.Sprintf("registry.example.com/image-%d@sha256:%064d", image, image),
				fmt.Sprintf("registry.example.com/image-%d:v1.2.3", image)}})
	}
	return node
}

func spaceName(i int) string { return fmt.Sprintf("team-%d", i) }

func (p population) namespace(i int) *corev1.Namespace {
	name := spaceName(i)
	n := &corev1.Namespace{ObjectMeta: p.meta("namespace", "", name, map[string]string{
		corev1.LabelMetadataName: name, "example.com/team": fmt.Sprintf("team-%d", i/3),
		"example.com/stage": []string{"dev", "test", "prod"}[i%3],
	})}
	n.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	n.Status.Phase = corev1.NamespaceActive
	return n
}

// app is one of the applications of a namespace.
func app(namespace, which int) string {
	return fmt.Sprintf("app-%d", (namespace*appsPerSpace+which)%applications)
}

// podLabels are those of a pod of a namespace's application; number is what policies select by.
func podLabels(namespace, which, number int) map[string]string {
	name := app(namespace, which)
	return map[string]string{
		"app.kubernetes.io/name":       name,
		"app.kubernetes.io/instance":   name + "-" + spaceName(namespace),
		"app.kubernetes.io/part-of":    fmt.Sprintf("product-%d", namespace%40),
		"app.kubernetes.io/version":    fmt.Sprintf("v1.%d.0", which),
		"app.kubernetes.io/managed-by": "Helm",
		"pod-template-hash":            fmt.Sprintf("%010d", (namespace*7919+which)%1e9),
		"num":                          strconv.Itoa(number),
	}
}

// A podState is what changes about a pod.
type podState struct {
	life     int // how often it was deleted and made again, with other addresses
	restarts int
	shift    int // of its number
}

// pod is number i in a state. It runs on node i / podsPerNode.
func (p population) pod(i int, s podState) *corev1.Pod {
	node, onNode := i/podsPerNode, i%podsPerNode
	namespace := i % p.namespaces()
	order := i / p.namespaces() // in its namespace
	which := order % appsPerSpace
	last := 2 + (onNode+s.life*podsPerNode)%250
	ip4 := fmt.Sprintf("10.%d.%d.%d", 128+node>>8, node&255, last)
	ip6 := fmt.Sprintf("fd00:10:244:%x::%x", 0x1000+node, last)
	labels := podLabels(namespace, which, (order+s.shift)%podNumbers)
	name := fmt.Sprintf("%s-%s-%05d", app(namespace, which), labels["pod-template-hash"], i)
	pod := &corev1.Pod{ObjectMeta: p.meta("pod", spaceName(namespace), name, labels)}
	pod.UID = uidOf(fmt.Sprintf("pod/%d/%d", i, s.life))
	pod.Annotations = map[string]string{"prometheus.io/scrape": "true",
		"checksum/config": fmt.Sprintf("%064d", i)}
	yes := true
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet",
		Name: name[:len(name)-6], UID: uidOf("rs/" + name), Controller: &yes,
		BlockOwnerDeletion: &yes}}
	container := corev1.Container{Name: "main", Image: "registry.example.com/" + name + ":v1.2.3",
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m")}},
		VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x7k2p", ReadOnly: true,
			MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}},
		TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File",
		ImagePullPolicy: "IfNotPresent"}
	for env := range 10 {
		container.Env = append(container.Env, corev1.EnvVar{
			Name: fmt.Sprintf("SETTING_%d", env), Value: "a value of some length " + name})
	}
	pod.Spec = corev1.PodSpec{NodeName: nodeName(node), Containers: []corev1.Container{container},
		RestartPolicy: "Always", DNSPolicy: "ClusterFirst", ServiceAccountName: "default",
		SchedulerName: "default-scheduler", SecurityContext: &corev1.PodSecurityContext{},
		Volumes: []corev1.Volume{{Name: "kube-api-access-x7k2p", VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		Tolerations: []corev1.Toleration{
			{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute"},
			{Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute"},
		}}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip4, StartTime: &born,
		PodIPs: []corev1.PodIP{{IP: ip4}, {IP: ip6}}, QOSClass: "Burstable",
		ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Ready: true,
			RestartCount: int32(s.restarts), Image: container.Image,
			ImageID:     "registry.example.com/image@sha256:" + strings.Repeat("a", 64),
			ContainerID: "containerd://" + strings.Repeat("b", 64),
			State: corev1.ContainerState{
				Running: &corev1.ContainerStateRunning{StartedAt: born}}}}}
	for _, t := range []corev1.PodConditionType{corev1.PodReady, corev1.PodScheduled,
		corev1.PodInitialized, corev1.ContainersReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: t,
			Status: corev1.ConditionTrue, LastTransitionTime: born})
	}
	return pod
}

// policy is number i after some edits, which change a port and a block. It selects the first
// application of a namespace.
func (p population) policy(i, edits int) *networkingv1.NetworkPolicy {
	namespace := i % p.namespaces()
	var ports []networkingv1.NetworkPolicyPort
	tcp := corev1.ProtocolTCP
	for n := range perPolicy {
		single, first := intstr.FromInt(8000+10*n), intstr.FromInt(9000+100*n)
		if n == 0 {
			single = intstr.FromInt(8000 + edits%10)
		}
		last := first.IntVal + 20
		ports = append(ports, networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &single},
			networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &first, EndPort: &last})
	}
	var spaces, numbers []string
	for n := range perPolicy {
		spaces = append(spaces, spaceName((namespace+1+n)%p.namespaces()))
		numbers = append(numbers, strconv.Itoa((i+n)%podNumbers))
	}
	peers := []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: oneOf(corev1.LabelMetadataName, spaces),
		PodSelector:       oneOf("num", numbers),
	}}
	var blocks []networkingv1.NetworkPolicyPeer
	for n := range perPolicy {
		blocks = append(blocks, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{
			CIDR: fmt.Sprintf("100.%d.%d.0/24", 64+n, (i+edits*(1-min(n, 1)))%256)}})
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: p.meta("networkpolicy", spaceName(namespace),
		fmt.Sprintf("allow-%d", i), nil)}
	policy.Generation = int64(1 + edits)
	policy.Spec = networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{
			"app.kubernetes.io/name": app(namespace, 0)}},
		PolicyTypes: []networkingv1.PolicyType{"Ingress", "Egress"},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports},
			{From: blocks, Ports: ports}},
		Egress: []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports},
			{To: blocks, Ports: ports}},
	}
	return policy
}

// oneOf selects what has one of some values of a label.
func oneOf(label string, values []string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: label, Operator: metav1.LabelSelectorOpIn, Values: values}}}
}

// numbered are the objects 0 to n-1 of a kind.
func numbered[T client.Object](n int, object func(i int) T) iter.Seq[client.Object] {
	return func(yield func(client.Object) bool) {
		for i := range n {
			if !yield(object(i)) {
				return
			}
		}
	}
}
