package framework

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// podObject is a pod with as little privilege as the test program can do with: it serves ports
// below 1024 and sends ICMP.
func (c *TheCluster) podObject(namespace string, o PodOptions) *corev1.Pod {
	no, grace := false, int64(5)
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: o.Name, Labels: o.Labels},
		Spec: corev1.PodSpec{
			HostNetwork:                   o.HostNetwork,
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name:            Container,
				Image:           c.image,
				ImagePullPolicy: corev1.PullIfNotPresent,
				Command:         []string{Program},
				Args:            o.Args,
				Ports:           o.Ports,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU:    resource.MustParse("1m"),
					corev1.ResourceMemory: resource.MustParse("4Mi"),
				}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no,
					Capabilities: &corev1.Capabilities{
						Drop: []corev1.Capability{"ALL"},
						Add:  []corev1.Capability{"NET_RAW", "NET_BIND_SERVICE"},
					},
				},
				TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			}},
		},
	}
	if o.Node != "" {
		object.Spec.Affinity = onNode(o.Node)
		object.Spec.Tolerations = []corev1.Toleration{
			{Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists,
				Effect: corev1.TaintEffectNoSchedule},
			{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists,
				Effect: corev1.TaintEffectNoSchedule},
		}
	}
	if o.Mutate != nil {
		o.Mutate(object)
	}
	return object
}

// onNode has the scheduler put a pod on one node. Naming the node in the pod would pass the
// scheduler by, and a full node would then fail the pod instead of having it wait.
func onNode(node string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{
					Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn,
					Values: []string{node},
				}},
			}}},
	}}
}

func tcpProbe(port string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.Parse(port)}},
		PeriodSeconds: 1, TimeoutSeconds: 2, FailureThreshold: 5,
	}
}

func ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && len(pod.Status.PodIPs) > 0
		}
	}
	return false
}

// describe says in a line what a pod does and why.
func describe(pod *corev1.Pod) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s/%s on %q is %s", pod.Namespace, pod.Name, pod.Spec.NodeName,
		pod.Status.Phase)
	if pod.Status.Message != "" {
		fmt.Fprintf(&text, " (%s)", pod.Status.Message)
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Status != corev1.ConditionTrue && condition.Message != "" {
			fmt.Fprintf(&text, ", %s=%s (%s)", condition.Type, condition.Status, condition.Message)
		}
	}
	for _, status := range pod.Status.ContainerStatuses {
		if state := status.State.Waiting; state != nil {
			fmt.Fprintf(&text, ", %s waits (%s: %s)", status.Name, state.Reason, state.Message)
		}
		if state := status.State.Terminated; state != nil {
			fmt.Fprintf(&text, ", %s ended with %d (%s: %s)", status.Name, state.ExitCode,
				state.Reason, state.Message)
		}
	}
	return text.String()
}
