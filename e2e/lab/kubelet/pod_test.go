package kubelet

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestCapabilityArgs(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{ContainerPort: 80}, {ContainerPort: 53, HostPort: 5353, Protocol: corev1.ProtocolUDP,
				HostIP: "192.168.0.1"},
		}}}}}
	for _, test := range []struct {
		annotations map[string]string
		want        string // JSON, or the start of an error
	}{
		{nil, ""},
		{map[string]string{IngressBandwidthAnnotation: "10M"},
			`,"bandwidth":{"ingressRate":10000000,"ingressBurst":4294967295}`},
		{map[string]string{EgressBandwidthAnnotation: "1Mi"},
			`,"bandwidth":{"egressRate":1048576,"egressBurst":4294967295}`},
		{map[string]string{EgressBandwidthAnnotation: "fast"},
			"annotation kubernetes.io/egress-bandwidth"},
		{map[string]string{IngressBandwidthAnnotation: "10"},
			"annotation kubernetes.io/ingress-bandwidth"},
	} {
		pod.Annotations = test.annotations
		args, err := capabilityArgs(pod)
		if strings.HasPrefix(test.want, "annotation") {
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("%v: got %v (%v), want an error", test.annotations, args, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ports := args["portMappings"]
		delete(args, "portMappings")
		portsJSON, err := json.Marshal(ports)
		if err != nil {
			t.Fatal(err)
		}
		restJSON, err := json.Marshal(args)
		if err != nil {
			t.Fatal(err)
		}
		want := `[{"hostPort":5353,"containerPort":53,"protocol":"udp","hostIP":"192.168.0.1"}]`
		if string(portsJSON) != want ||
			string(restJSON) != "{"+strings.TrimPrefix(test.want, ",")+"}" {
			t.Errorf("%v: got %s and %s", test.annotations, portsJSON, restJSON)
		}
	}
}

func TestServedPorts(t *testing.T) {
	t.Parallel()
	always := corev1.ContainerRestartPolicyAlways
	port := func(number int32, protocol corev1.Protocol) corev1.ContainerPort {
		return corev1.ContainerPort{ContainerPort: number, Protocol: protocol}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{
			// has ended before the pod serves
			{Ports: []corev1.ContainerPort{port(1, corev1.ProtocolTCP)}},
			{Ports: []corev1.ContainerPort{port(2, corev1.ProtocolUDP)}, RestartPolicy: &always},
		},
		Containers: []corev1.Container{
			{Ports: []corev1.ContainerPort{port(80, ""), port(80, corev1.ProtocolSCTP)}},
			{Ports: []corev1.ContainerPort{port(80, corev1.ProtocolTCP),
				port(65535, corev1.ProtocolTCP)}},
		},
	}}
	var got []string
	for _, p := range servedPorts(pod) {
		got = append(got, p.String())
	}
	if diff := cmp.Diff([]string{"udp/2", "tcp/80", "sctp/80", "tcp/65535"}, got); diff != "" {
		t.Error(diff)
	}
}
