package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// The folders of the host that each DaemonSet may have. A longer list is more that an agent in
// wrong hands could do.
var (
	policyPaths  = []string{"/run/sluice", "/opt/cni/bin", "/proc/sys/net"}
	networkPaths = append([]string{"/etc/cni/net.d", "/run/flannel", "/run/NetworkManager/conf.d",
		"/run/systemd/network"}, policyPaths...)
)

func allowedPaths(kustomization string) map[string]bool {
	paths := networkPaths
	if strings.HasSuffix(kustomization, "/policy-only") {
		paths = policyPaths
	}
	allowed := map[string]bool{}
	for _, path := range paths {
		allowed[path] = true
	}
	return allowed
}

func hostPaths(pod corev1.PodSpec) map[string]bool {
	paths := map[string]bool{}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			paths[v.HostPath.Path] = true
		}
	}
	return paths
}

// TestStrict: each object has only keys that its Go type knows, and our label.
func TestStrict(t *testing.T) {
	t.Parallel()
	for _, kustomization := range everything() {
		objects := kustomize(t, kustomization)
		if _, err := typed(objects); err != nil {
			t.Errorf("%s: %v", kustomization, err)
		}
		for _, o := range objects {
			if got := o.GetLabels()["app.kubernetes.io/name"]; got != "sluice" {
				t.Errorf("%s: %s has label app.kubernetes.io/name=%q", kustomization, o, got)
			}
		}
	}
	for what, text := range map[string]string{
		"unknown key":  "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\nautomountToken: false\n",
		"unknown type": "apiVersion: v1\nkind: ServiceAcount\nmetadata: {name: a}\n",
		"wrong type": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " +
			"a}\nautomountServiceAccountToken: 5\n",
	} {
		if _, err := typed(parse(t, text)); err == nil {
			t.Errorf("control: %s is no error", what)
		}
	}
}

// TestPods: what the containers may do is what they need, in all that is rendered.
func TestPods(t *testing.T) {
	t.Parallel()
	for _, kustomization := range everything() {
		pod := podOf(t, kustomization)
		for _, problem := range podProblems(pod, allowedPaths(kustomization)) {
			t.Errorf("%s: %s", kustomization, problem)
		}
	}
	// What an agent may have written has to be in reach of uninstalling.
	agent, remover := podOf(t, "config/default"), podOf(t, uninstall)
	if a, b := hostPaths(agent), hostPaths(remover); !maps.Equal(a, b) {
		t.Errorf("the agent writes %v, and uninstalling reaches %v", a, b)
	}
	for _, kustomization := range []string{uninstall, checking, checkingPolicy} {
		account := podOf(t, kustomization).AutomountServiceAccountToken
		if account == nil || *account {
			t.Errorf("%s has a token", kustomization)
		}
	}
	for _, m := range podOf(t, checking).InitContainers[0].VolumeMounts {
		if !m.ReadOnly {
			t.Errorf("who checks may write to %s", m.MountPath)
		}
	}
}

func podOf(t *testing.T, kustomization string) corev1.PodSpec {
	t.Helper()
	daemons := only[*appsv1.DaemonSet](t, kustomize(t, kustomization))
	if len(daemons) != 1 {
		t.Fatalf("%s has %d DaemonSets", kustomization, len(daemons))
	}
	return daemons[0].Spec.Template.Spec
}

// podProblems says what a pod has that it shouldn't, or hasn't and should.
func podProblems(pod corev1.PodSpec, allowed map[string]bool) (problems []string) {
	is := func(condition bool, format string, args ...any) {
		if condition {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	is(!pod.HostNetwork, "not in the host's network")
	is(pod.HostPID || pod.HostIPC, "in the host's PID or IPC namespace")
	is(pod.TerminationGracePeriodSeconds == nil || *pod.TerminationGracePeriodSeconds > 30,
		"takes long to end")
	if s := pod.SecurityContext; s == nil {
		is(true, "no security context")
	} else {
		is(s.RunAsUser == nil || *s.RunAsUser != 0, "not uid 0, which owns the folders")
		is(s.SeccompProfile == nil || s.SeccompProfile.Type !=
			corev1.SeccompProfileTypeRuntimeDefault, "not seccomp's RuntimeDefault")
		is(len(s.Sysctls) > 0, "sets sysctls")
	}
	for _, v := range pod.Volumes {
		is(v.HostPath == nil && (v.ConfigMap == nil || v.ConfigMap.Name != "sluice-network"),
			"volume %s is of another kind", v.Name)
		is(v.HostPath != nil && !allowed[v.HostPath.Path], "volume %s is %s of the host", v.Name,
			hostPathOf(v))
		is(v.HostPath != nil &&
			(v.HostPath.Type == nil || !strings.HasPrefix(string(*v.HostPath.Type), "Directory")),
			"volume %s may be no folder", v.Name)
	}
	is(len(pod.EphemeralContainers) > 0, "ephemeral containers")
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		problems = append(problems, containerProblems(c)...)
	}
	return problems
}

func hostPathOf(v corev1.Volume) string {
	if v.HostPath == nil {
		return ""
	}
	return v.HostPath.Path
}

func containerProblems(c corev1.Container) (problems []string) {
	is := func(condition bool, what string) {
		if condition {
			problems = append(problems, "container "+c.Name+": "+what)
		}
	}
	s := c.SecurityContext
	if s == nil || s.Capabilities == nil {
		return []string{"container " + c.Name + ": no security context, or no capabilities in it"}
	}
	is(s.Privileged == nil || *s.Privileged, "privileged")
	is(s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation, "may get more privileges")
	is(s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "writable root")
	is(s.RunAsUser != nil || s.SeccompProfile != nil || s.ProcMount != nil ||
		s.SELinuxOptions != nil || s.AppArmorProfile != nil,
		"differs from its pod")
	is(!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}),
		"doesn't drop all capabilities")
	wanted := []corev1.Capability{"NET_ADMIN", "NET_RAW"}
	if c.Name == "install-plugin" {
		wanted = nil
	}
	is(!slices.Equal(s.Capabilities.Add, wanted),
		fmt.Sprintf("adds capabilities %v", s.Capabilities.Add))
	is(c.ImagePullPolicy != corev1.PullIfNotPresent && c.ImagePullPolicy != corev1.PullAlways,
		"no pull policy")
	is(!strings.Contains(c.Image, ":") || strings.HasSuffix(c.Image, ":latest"),
		"image without a version")
	is(c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero(), "no requests")
	is(len(c.VolumeDevices) > 0 || c.Lifecycle != nil || len(c.EnvFrom) > 0,
		"devices, hooks, or an environment from elsewhere")
	for _, m := range c.VolumeMounts {
		is(m.SubPath != "" || m.SubPathExpr != "", m.MountPath+" is mounted by subPath")
		is(m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone,
			m.MountPath+" passes mounts on")
		is(m.Name == "net-conf" && !m.ReadOnly, m.MountPath+" is writable")
	}
	return problems
}

// TestPodProblems is the control of TestPods.
func TestPodProblems(t *testing.T) {
	t.Parallel()
	good := podOf(t, "config/default")
	allowed := allowedPaths("config/default")
	agent := func(change func(c *corev1.Container)) func(*corev1.PodSpec) {
		return func(p *corev1.PodSpec) { change(&p.Containers[0]) }
	}
	root := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: "/", Type: new(corev1.HostPathDirectory)},
	}}
	for want, change := range map[string]func(*corev1.PodSpec){
		"PID":            func(p *corev1.PodSpec) { p.HostPID = true },
		"host's network": func(p *corev1.PodSpec) { p.HostNetwork = false },
		"seccomp": func(p *corev1.PodSpec) {
			p.SecurityContext.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined
		},
		"long to end": func(p *corev1.PodSpec) {
			p.TerminationGracePeriodSeconds = new(int64(300))
		},
		"volume v is /":    func(p *corev1.PodSpec) { p.Volumes = append(p.Volumes, root) },
		"may be no folder": func(p *corev1.PodSpec) { p.Volumes[1].HostPath.Type = nil },
		"of another kind":  func(p *corev1.PodSpec) { p.Volumes[0].ConfigMap.Name = "other" },
		"privileged": agent(func(c *corev1.Container) {
			c.SecurityContext.Privileged = new(true)
		}),
		"may get more": agent(func(c *corev1.Container) {
			c.SecurityContext.AllowPrivilegeEscalation = nil
		}),
		"writable root": agent(func(c *corev1.Container) {
			c.SecurityContext.ReadOnlyRootFilesystem = nil
		}),
		"no security context": agent(func(c *corev1.Container) { c.SecurityContext = nil }),
		"doesn't drop": agent(func(c *corev1.Container) {
			c.SecurityContext.Capabilities.Drop = nil
		}),
		"NET_RAW SYS_ADMIN]": agent(func(c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = append(c.SecurityContext.Capabilities.Add,
				"SYS_ADMIN")
		}),
		"adds capabilities [NET_ADMIN]": agent(func(c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
		}),
		"without a version": agent(func(c *corev1.Container) { c.Image = "sluice-net/sluice" }),
		"no requests":       agent(func(c *corev1.Container) { c.Resources.Requests = nil }),
		"by subPath": agent(
			func(c *corev1.Container) { c.VolumeMounts[0].SubPath = "net-conf.json" }),
		"is writable": agent(func(c *corev1.Container) { c.VolumeMounts[0].ReadOnly = false }),
		"passes mounts on": agent(func(c *corev1.Container) {
			c.VolumeMounts[1].MountPropagation = new(corev1.MountPropagationBidirectional)
		}),
		"container install-plugin: adds": func(p *corev1.PodSpec) {
			p.InitContainers[0].SecurityContext.Capabilities.Add = []corev1.Capability{"NET_RAW"}
		},
	} {
		bad := good.DeepCopy()
		change(bad)
		problems := podProblems(*bad, allowed)
		if len(problems) != 1 || !strings.Contains(problems[0], want) {
			t.Errorf("expected one problem that says %q: %q", want, problems)
		}
	}
}

// TestPermissions: the agent reads what policy needs and reports; uninstalling and checking may
// nothing.
func TestPermissions(t *testing.T) {
	t.Parallel()
	for _, kustomization := range everything() {
		objects := kustomize(t, kustomization)
		roles := only[*rbacv1.ClusterRole](t, objects)
		if slices.Contains([]string{uninstall, checking, checkingPolicy}, kustomization) {
			bindings := only[*rbacv1.ClusterRoleBinding](t, objects)
			if len(roles)+len(bindings) != 0 {
				t.Errorf("%s has permissions", kustomization)
			}
			continue
		}
		if len(roles) != 1 || len(only[*rbacv1.Role](t, objects)) != 0 {
			t.Fatalf("%s: expected one ClusterRole and no Role", kustomization)
		}
		for _, problem := range roleProblems(roles[0]) {
			t.Errorf("%s: %s", kustomization, problem)
		}
	}
	for want, rule := range map[string]rbacv1.PolicyRule{
		"patch nodes": {APIGroups: []string{""}, Resources: []string{"nodes"},
			Verbs: []string{"get", "patch"}},
		"get secrets": {APIGroups: []string{""}, Resources: []string{"secrets"},
			Verbs: []string{"get"}},
		"list *": {APIGroups: []string{""}, Resources: []string{"*"}, Verbs: []string{"list"}},
		"list customresourcedefinitions": {APIGroups: []string{"apiextensions.k8s.io"},
			Resources: []string{"customresourcedefinitions"}, Verbs: []string{"list"}},
		"* pods": {APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"*"}},
		"get nodes/proxy": {APIGroups: []string{""}, Resources: []string{"nodes/proxy"},
			Verbs: []string{"get"}},
		"get pods": {APIGroups: []string{"*"}, Resources: []string{"pods"}, Verbs: []string{"get"}},
		"URLs":     {NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}},
	} {
		role := &rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{rule}}
		problems := roleProblems(role)
		if len(problems) != 1 || !strings.Contains(problems[0], want) {
			t.Errorf("control: expected one problem that says %q: %q", want, problems)
		}
	}
	if role := (&rbacv1.ClusterRole{AggregationRule: &rbacv1.AggregationRule{}}); len(
		roleProblems(role)) == 0 {
		t.Error("control: a role that takes in others is no problem")
	}
}

// roleProblems says what a role allows that the agent doesn't need.
func roleProblems(role *rbacv1.ClusterRole) (problems []string) {
	reads, reports := []string{"get", "list", "watch"}, []string{"create", "patch"}
	needed := map[string][]string{
		"/pods": reads, "/namespaces": reads, "/nodes": reads,
		"networking.k8s.io/networkpolicies":               reads,
		"policy.networking.k8s.io/clusternetworkpolicies": reads,
		"/services": {"list"}, "discovery.k8s.io/endpointslices": {"list"},
		"/events": reports, "events.k8s.io/events": reports,
	}
	if role.AggregationRule != nil {
		problems = append(problems, "takes in other roles")
	}
	// Of definitions the agent reads the one that it knows what to do with.
	ofOne := map[string]string{"apiextensions.k8s.io/customresourcedefinitions": definition}
	for _, rule := range role.Rules {
		if len(rule.NonResourceURLs) > 0 {
			problems = append(problems, "allows URLs")
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					name := ofOne[group+"/"+resource]
					if slices.Equal(rule.ResourceNames, []string{name}) &&
						slices.Contains(reads, verb) {
						continue
					}
					if !slices.Contains(needed[group+"/"+resource], verb) {
						problems = append(problems,
							fmt.Sprintf("allows to %s %s of group %q", verb, resource, group))
					}
				}
			}
		}
	}
	return problems
}
