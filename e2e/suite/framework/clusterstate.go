package framework

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// testLogLines is how much of each test pod's log the diagnostics have.
const testLogLines = 50

func (c *TheCluster) namespaceSections(ctx context.Context, namespace string) []section {
	pods, err := c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return []section{{"pods of " + namespace, err.Error()}}
	}
	lines := int64(testLogLines)
	var logs strings.Builder
	for _, pod := range pods.Items {
		fmt.Fprintf(&logs, "--- %s\n%s", pod.Name,
			c.logsOrWhyNot(ctx, &pod,
				&corev1.PodLogOptions{TailLines: &lines, Container: Container}))
	}
	return []section{
		{"pods of " + namespace, podTable(pods.Items)},
		{"events of " + namespace, c.events(ctx, namespace)},
		{"logs of " + namespace, logs.String()},
		{"objects of " + namespace, c.objects(ctx, namespace)},
	}
}

// agentSections: every agent's log, also of the container before, and the events about agents and
// nodes.
func (c *TheCluster) agentSections(ctx context.Context) []section {
	pods, err := c.Client.CoreV1().Pods(AgentNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return []section{{"pods of " + AgentNamespace, err.Error()}}
	}
	sections := []section{
		{"pods of " + AgentNamespace, podTable(pods.Items)},
		{"events of " + AgentNamespace, c.events(ctx, AgentNamespace)},
		{"events of nodes", c.events(ctx, metav1.NamespaceDefault)},
	}
	for _, pod := range pods.Items {
		name := "log of " + pod.Name + " on " + pod.Spec.NodeName
		sections = append(sections,
			section{name, c.logsOrWhyNot(ctx, &pod, &corev1.PodLogOptions{})})
		for _, status := range pod.Status.ContainerStatuses {
			if status.RestartCount > 0 {
				sections = append(sections, section{"previous " + name,
					c.logsOrWhyNot(ctx, &pod, &corev1.PodLogOptions{Previous: true})})
			}
		}
	}
	return append(sections, c.proxySections(ctx)...)
}

// proxySections: what stands between a client and a Service's pods may be what failed.
func (c *TheCluster) proxySections(ctx context.Context) []section {
	pods, err := c.Client.CoreV1().Pods(metav1.NamespaceSystem).
		List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=kube-proxy"})
	if err != nil {
		return []section{{"logs of kube-proxy", err.Error()}}
	}
	var sections []section
	for _, pod := range pods.Items {
		sections = append(sections, section{"log of " + pod.Name + " on " + pod.Spec.NodeName,
			c.logsOrWhyNot(ctx, &pod, &corev1.PodLogOptions{})})
	}
	return sections
}

func (c *TheCluster) logsOrWhyNot(ctx context.Context, pod *corev1.Pod,
	o *corev1.PodLogOptions) string {
	logs, err := c.logs(ctx, pod.Namespace, pod.Name, o)
	if err != nil {
		return err.Error() + "\n"
	}
	return logs
}

func podTable(pods []corev1.Pod) string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tPHASE\tREADY\tRESTARTS\tNODE\tADDRESSES\tLABELS\tAGE")
	for _, pod := range pods {
		var restarts int32
		for _, status := range pod.Status.ContainerStatuses {
			restarts += status.RestartCount
		}
		var addresses []string
		for _, ip := range pod.Status.PodIPs {
			addresses = append(addresses, ip.IP)
		}
		phase := string(pod.Status.Phase)
		if pod.DeletionTimestamp != nil {
			phase += " (terminating)"
		}
		fmt.Fprintf(table, "%s\t%s\t%v\t%d\t%s\t%s\t%s\t%s\n", pod.Name, phase, ready(&pod),
			restarts, pod.Spec.NodeName,
			strings.Join(addresses, ","),
			metav1.FormatLabelSelector(metav1.SetAsLabelSelector(pod.Labels)),
			time.Since(pod.CreationTimestamp.Time).Round(time.Second))
	}
	_ = table.Flush() // to memory
	for _, pod := range pods {
		if !ready(&pod) {
			fmt.Fprintln(&text, describe(&pod))
		}
	}
	return text.String()
}

func (c *TheCluster) events(ctx context.Context, namespace string) string {
	events, err := c.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	at := func(event *corev1.Event) time.Time {
		return slices.MaxFunc([]time.Time{event.LastTimestamp.Time, event.EventTime.Time,
			event.CreationTimestamp.Time}, time.Time.Compare)
	}
	slices.SortFunc(events.Items, func(a, b corev1.Event) int { return at(&a).Compare(at(&b)) })
	var text strings.Builder
	for _, event := range events.Items {
		fmt.Fprintf(&text, "%s %s %s %s/%s (%d): %s\n", at(&event).UTC().Format(time.TimeOnly),
			event.Type, event.Reason,
			strings.ToLower(event.InvolvedObject.Kind), event.InvolvedObject.Name,
			max(event.Count, 1), event.Message)
	}
	return text.String()
}

// objects are what decides about a namespace's traffic, as YAML.
func (c *TheCluster) objects(ctx context.Context, namespace string) string {
	read := []func() (any, error){
		func() (any, error) {
			return c.Client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		},
		func() (any, error) {
			return c.Client.NetworkingV1().NetworkPolicies(namespace).
				List(ctx, metav1.ListOptions{})
		},
		func() (any, error) {
			return c.Client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
		},
		func() (any, error) {
			return c.Client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{})
		},
		func() (any, error) {
			return c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		},
	}
	var text strings.Builder
	for _, get := range read {
		object, err := get()
		if err != nil {
			fmt.Fprintf(&text, "--- %v\n", err)
			continue
		}
		out, err := yaml.Marshal(object)
		if err != nil {
			fmt.Fprintf(&text, "--- %v\n", err)
			continue
		}
		fmt.Fprintf(&text, "---\n%s", out)
	}
	return text.String()
}

// nodeSections: the state of each node's kernel, where nodes are containers of the local Docker.
func (c *TheCluster) nodeSections(ctx context.Context) []section {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return []section{{"nodes", err.Error()}}
	}
	var sections []section
	for _, node := range nodes.Items {
		var conditions strings.Builder
		fmt.Fprintf(&conditions, "podCIDRs %v, taints %v\n", node.Spec.PodCIDRs, node.Spec.Taints)
		for _, condition := range node.Status.Conditions {
			fmt.Fprintf(&conditions, "%s=%s %s: %s\n", condition.Type, condition.Status,
				condition.Reason, condition.Message)
		}
		sections = append(sections, section{"node " + node.Name, conditions.String()})
		if c.Kind == nil {
			sections = append(sections,
				section{"kernel of " + node.Name, "not read: SLUICE_KIND_CLUSTER isn't set"})
			continue
		}
		for _, command := range []string{
			"nft list ruleset",
			"ip route show table all",
			"ip -6 route show table all",
			"ip -details -statistics link show",
			"ip address show",
			"ip neighbour show",
			"cat /proc/sys/net/netfilter/nf_conntrack_count " +
				"/proc/sys/net/netfilter/nf_conntrack_max",
			"ls -l --full-time /etc/cni/net.d /opt/cni/bin /run/sluice",
		} {
			out, err := c.Kind.Exec(ctx, node.Name, strings.Fields(command)...)
			if err != nil {
				out += err.Error()
			}
			sections = append(sections, section{command + " on " + node.Name, out})
		}
	}
	return sections
}
