package manifests

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/overlay"
)

// TestValues: what can be set arrives where it belongs.
func TestValues(t *testing.T) {
	t.Parallel()
	objects := helm(t, `
image: {repository: example.com/mirror/sluice, tag: v9, pullPolicy: Always}
imagePullSecrets: [{name: mirror}]
netConf:
  Network: 10.1.0.0/16
  Backend: {VNI: 16777215, Port: 4789, MTU: 9000, DirectRouting: true}
extraArgs: [--forward-accept, --zap-log-level=debug]
cni: {binDir: /other/bin, confDir: /other/conf}
resources: {requests: {memory: 192Mi}, limits: {memory: 1Gi}}
nodeSelector: {pool: a}
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}]}}}
tolerations: [{key: a, operator: Exists}]
priorityClassName: other
maxUnavailable: 10%
podLabels: {team: a}
podAnnotations: {note: b}
`)
	daemon := only[*appsv1.DaemonSet](t, objects)[0]
	template := daemon.Spec.Template
	pod := template.Spec
	agent := pod.Containers[0]
	placed := pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	paths := hostPaths(pod)
	config, err := overlay.ParseConfig(
		[]byte(only[*corev1.ConfigMap](t, objects)[0].Data["net-conf.json"]))
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]any{
		"image":       {agent.Image, "example.com/mirror/sluice:v9"},
		"init image":  {pod.InitContainers[0].Image, "example.com/mirror/sluice:v9"},
		"pull policy": {agent.ImagePullPolicy, corev1.PullAlways},
		"pull secrets": {only[*corev1.ServiceAccount](t, objects)[0].ImagePullSecrets,
			[]corev1.LocalObjectReference{{Name: "mirror"}}},
		"network": {config.Network.String(), "10.1.0.0/16"},
		"VNI":     {config.VNI, uint32(16777215)},
		"args": {agent.Args[len(agent.Args)-2:],
			[]string{"--forward-accept", "--zap-log-level=debug"}},
		"folders": {[]bool{paths["/other/bin"], paths["/other/conf"],
			paths["/opt/cni/bin"]}, []bool{true, true, false}},
		"requests": {agent.Resources.Requests[corev1.ResourceMemory], resource.MustParse("192Mi")},
		"default requests": {agent.Resources.Requests[corev1.ResourceCPU],
			resource.MustParse("100m")},
		"limits": {agent.Resources.Limits[corev1.ResourceMemory], resource.MustParse("1Gi")},
		"node selector": {pod.NodeSelector,
			map[string]string{"kubernetes.io/os": "linux", "pool": "a"}},
		"affinity": {placed.NodeSelectorTerms[0].MatchFields[0].Values, []string{"n1"}},
		"tolerations": {pod.Tolerations,
			[]corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists}}},
		"priority": {pod.PriorityClassName, "other"},
		"max unavailable": {*daemon.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable,
			intstr.FromString("10%")},
		"pod label":          {template.Labels["team"], "a"},
		"label of its own":   {template.Labels["app.kubernetes.io/name"], "sluice"},
		"pod annotation":     {template.Annotations, map[string]string{"note": "b"}},
		"security: problems": {len(podProblems(pod, paths)), 0},
	} {
		if d := cmp.Diff(pair[0], pair[1]); d != "" {
			t.Errorf("%s (-got +want):\n%s", what, d)
		}
	}
}

// TestRefusedValues: what makes no sense is refused by its name.
func TestRefusedValues(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]string{
		"netConf: {Backend: {Type: wireguard}}":       "/netConf/Backend/Type",
		"netConf: {Backend: {VNI: -1}}":               "/netConf/Backend/VNI",
		"netConf: {Backend: {Port: 65536}}":           "/netConf/Backend/Port",
		"netConf: {Backend: {Mtu: 1400}}":             "'Mtu'",
		"netConf: {Network: 5}":                       "/netConf/Network",
		"netConf: {Networks: [10.1.0.0/16]}":          "'Networks'",
		"netconf: {}":                                 "'netconf'",
		"policyOnly: 'yes'":                           "/policyOnly",
		"clusterNetworkPolicies: alpha":               "/clusterNetworkPolicies",
		"image: sluice:v1":                            "image",
		"image: {pullPolicy: Sometimes}":              "/image/pullPolicy",
		"image: {repository: ''}":                     "/image/repository",
		"extraArgs: --forward-accept":                 "extraArgs",
		"extraArgs: [forward-accept]":                 "/extraArgs/0",
		"cni: {binDir: opt/cni/bin}":                  "/cni/binDir",
		"maxUnavailable: 0":                           "/maxUnavailable",
		"maxUnavailable: 0%":                          "/maxUnavailable",
		"nodeSelector: {a: 1}":                        "/nodeSelector/a",
		"resources: {request: {memory: 1Gi}}":         "'request'",
		"imagePullSecrets: [mirror]":                  "/imagePullSecrets/0",
		"tolerations: {operator: Exists}":             "tolerations",
		"podLabels: {a: true}":                        "/podLabels/a",
		"createNamespace: {}\npriorityClassName: [a]": "priorityClassName",
	} {
		out, err := helmTemplate(t.Context(), values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: expected an error that names %s, got %v\n%s", values, want, err, out)
		}
	}
}

// TestNetConfValues: what the agent takes as net-conf.json can be given to the chart.
func TestNetConfValues(t *testing.T) {
	t.Parallel()
	for _, values := range []string{
		"netConf: {EnableIPv6: false, EnableIPv4: true, IPv6Network: '::/0'}", // K3s
		"netConf: {Backend: {Type: VXLAN, VNI: 0, Port: 0, GBP: false, Learning: false, " +
			"MacPrefix: 0E-2A}}",
		// RKE, Windows nodes
		"netConf: {Backend: {Type: host-gw, VNI: 1, Port: 8472, DirectRouting: false, Name: cbr0}}",
	} {
		if out, err := helmTemplate(t.Context(), values); err != nil {
			t.Errorf("%s: %v\n%s", values, err, out)
		}
	}
}

// TestNamespace: without createNamespace there is none, and everything is in the release's.
func TestNamespace(t *testing.T) {
	t.Parallel()
	out, err := run(t.Context(), "", "bin/helm", "template", "any", chart, "--namespace=elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, o := range parse(t, out) {
		kinds = append(kinds, o.GetKind())
		namespace := o.GetNamespace()
		if namespace != "elsewhere" && !strings.HasPrefix(o.GetKind(), "Cluster") {
			t.Errorf("%s is in namespace %q", o, namespace)
		}
	}
	slices.Sort(kinds)
	want := []string{"ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet",
		"ServiceAccount"}
	if !slices.Equal(kinds, want) {
		t.Errorf("kinds: %q, want %q", kinds, want)
	}
	if strings.Contains(out, "sluice-system") {
		t.Error("something still names sluice-system")
	}
}
