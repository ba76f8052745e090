package cases

// Tiers returns the cases of ClusterNetworkPolicies, in the order of their table.
func Tiers() []Case {
	var out []Case
	for _, part := range [][]Case{orderCases(), tierCases(), clusterPeerCases(), closedCases()} {
		out = append(out, part...)
	}
	return out
}

func orderCases() []Case {
	return []Case{
		{
			Line: "rules of a policy", Name: "the first that matches counts",
			ClusterPolicies: map[string]string{"guard": `
tier: Admin
priority: 5
subject: {namespaces: {matchLabels: {env: dev}}}
egress:
- {action: Accept, to: [{networks: ["{{ip4 "out"}}/32"]}], protocols: [{tcp: {destinationPort: {number: 80}}}]}
- {action: Deny, to: [{networks: ["{{ip4 "out"}}/32", "{{ip6 "out"}}/128"]}]}
- {action: Accept, to: [{networks: [0.0.0.0/0]}]}`},
			Allow: []string{"dev/web > out tcp/80 v4", "dev/web > out2 tcp/80",
				"prod/web > out udp/80", "dev/web > dev/db tcp/80", "out > dev/web tcp/80"},
			Deny: []string{"dev/web > out tcp/81 v4", "dev/web > out udp/80", "dev/db > out icmp",
				"dev/web > out tcp/80 v6"},
		},
		{
			Line: "policies of a tier", Name: "the lowest priority first, then the first name",
			ClusterPolicies: map[string]string{
				"z": `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [
  {action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}]}]}`,
				"b": `{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [
  {action: Deny, from: [{namespaces: {matchLabels: {env: dev}}}]}]}`,
				"c": `{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [
  {action: Accept, from: [{namespaces: {}}]}]}`,
			},
			Allow: []string{"dev/db > dev/web tcp/80", "prod/web > dev/web tcp/80",
				"out > dev/web tcp/80", "node > dev/web tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/80", "dev/web > prod/web icmp"},
		},
		{
			Line: "no rule matches", Name: "nothing is isolated",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}},
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {env: none}}}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80", "out > dev/web udp/80",
				"dev/web > out tcp/80"},
		},
		{
			Line: "rules of a policy", Name: "without protocols: everything, ICMP too",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {matchLabels: {env: prod}}},
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {env: dev}}}]}]}`},
			Allow: []string{"ops/probe > prod/web icmp", "prod/web > dev/web icmp"},
			Deny: []string{"dev/web > prod/web icmp", "dev/web > prod/web sctp/80",
				"dev/db > prod/web udp/80", "dev/db > prod/web tcp/81"},
		},
	}
}

const (
	denyDev = `{podSelector: {}, policyTypes: [Ingress, Egress]}`
	webOnly = `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`
)

func tierCases() []Case {
	return []Case{
		{
			Line: "Admin before NetworkPolicy", Name: "Accept overrides isolation, at its own end",
			Policies: map[string]string{"dev/deny": denyDev},
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, ingress: [
  {action: Accept, from: [{namespaces: {matchLabels: {env: prod}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}`},
			Allow: []string{"prod/web > dev/web tcp/80"},
			Deny: []string{"prod/web > dev/web tcp/81", "ops/probe > dev/web tcp/80",
				"dev/web > dev/db tcp/80", "dev/web > prod/web tcp/80"},
		},
		{
			Line: "Admin before NetworkPolicy", Name: "Deny overrides what is allowed",
			Policies: map[string]string{"dev/web": webOnly},
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, ingress: [
  {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 81}}}}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/8080", "dev/web > dev/db udp/80",
				"out > prod/web tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/80", "dev/web > dev/db tcp/81",
				"out > dev/db tcp/80", "ops/probe > prod/web tcp/80"},
		},
		{
			Line: "Pass", Name: "leaves the tier, to NetworkPolicies",
			Policies: map[string]string{"dev/web": webOnly},
			ClusterPolicies: map[string]string{
				"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, ingress: [
  {action: Pass, from: [{namespaces: {matchLabels: {env: dev}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
  {action: Deny, from: [{namespaces: {matchLabels: {env: dev}}}]}]}`,
				"b": `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [
  {action: Accept, from: [{namespaces: {}}]}]}`,
			},
			Allow: []string{"dev/web > dev/db tcp/80", "dev/db > prod/web tcp/80",
				"prod/web > dev/db udp/80"},
			Deny: []string{"dev/db > dev/web tcp/80", "dev/web > dev/db tcp/81",
				"dev/db > prod/web tcp/81"},
		},
		{
			Line: "Baseline behind NetworkPolicy", Name: "only for pods that none isolates",
			Policies: map[string]string{"dev/web": webOnly},
			ClusterPolicies: map[string]string{"default": `{tier: Baseline, priority: 0, subject: {namespaces: {}},
  ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{networks: ["{{ip4 "out2"}}/32"]}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80", "out > prod/web tcp/80",
				"dev/web > out tcp/80", "prod/web > out2 tcp/80 v6"},
			Deny: []string{"dev/web > prod/web tcp/80", "dev/db > dev/web tcp/80",
				"dev/web > out2 tcp/80 v4"},
		},
		{
			Line: "Pass", Name: "leaves the Baseline tier too: allowed",
			ClusterPolicies: map[string]string{
				"a": `{tier: Baseline, priority: 0, subject: {namespaces: {}}, ingress: [
  {action: Pass, from: [{namespaces: {matchLabels: {env: dev}}}]}]}`,
				"b": `{tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [
  {action: Deny, from: [{namespaces: {}}]}]}`,
			},
			Allow: []string{"dev/web > prod/web tcp/80"},
			Deny:  []string{"prod/web > dev/web tcp/80", "ops/probe > dev/db icmp"},
		},
		{
			Line: "Pass", Name: "pods before networks",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, egress: [
  {action: Pass, to: [{namespaces: {}}]}, {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]}`},
			Allow: []string{"dev/web > prod/web tcp/80", "prod/web > dev/db icmp",
				"out > dev/web tcp/80"},
			Deny: []string{"dev/web > out tcp/80", "ops/probe > out2 udp/80",
				"dev/web > node tcp/80"},
		},
	}
}

func clusterPeerCases() []Case {
	return []Case{
		{
			Line: "subject", Name: "pods by namespace and labels; never to itself",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0,
  subject: {pods: {namespaceSelector: {matchLabels: {env: dev}}, podSelector: {matchLabels: {app: web}}}},
  egress: [{action: Deny, to: [{namespaces: {}}]}]}`},
			Allow: []string{"prod/web > dev/web tcp/80", "dev/db > dev/web tcp/80",
				"dev/web > dev/web tcp/80", "dev/web > out tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/80", "dev/web > prod/web tcp/80"},
		},
		{
			Line: "peers", Name: "pods and both families' networks in one rule",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {matchLabels: {env: dev}}}, egress: [
  {action: Accept, to: [{namespaces: {}}, {networks: [0.0.0.0/0, "::/0"]}], protocols: [{tcp: {destinationPort: {number: 80}}}]},
  {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80", "dev/web > out tcp/80",
				"prod/web > out tcp/81"},
			Deny: []string{"dev/web > dev/db tcp/81", "dev/web > out udp/80"},
		},
		{
			Line: "destinationNamedPort", Name: "a name, of any protocol, of the pod that has it",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, ingress: [
  {action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: query}]}]}`},
			Allow: []string{"ops/probe > dev/web udp/81", "ops/probe > dev/web tcp/80",
				"ops/probe > dev/db udp/80", "ops/probe > prod/web udp/80"},
			Deny: []string{"ops/probe > dev/web udp/80", "ops/probe > dev/db udp/81"},
		},
		{
			Line: "destinationNamedPort", Name: "of the peers, in egress",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, egress: [
  {action: Deny, to: [{namespaces: {matchLabels: {env: dev}}}], protocols: [{destinationNamedPort: http}]}]}`},
			Allow: []string{"ops/probe > prod/web tcp/81", "ops/probe > dev/web tcp/81",
				"ops/probe > out tcp/80"},
			Deny: []string{"ops/probe > dev/web tcp/80", "ops/probe > dev/db tcp/8080"},
		},
	}
}

// closedCases have what can't be read. An API server of today refuses them; one with a newer API
// may not.
func closedCases() []Case {
	const unreadable = "a field that can't be read"
	return []Case{
		{
			Line: unreadable, Name: "Accept: the rule matches nothing", NoServer: true,
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, ingress: [
  {action: Accept, from: [{namespaces: {}}, {}]}, {action: Deny, from: [{namespaces: {matchLabels: {env: dev}}}]}]}`},
			Problems: []string{"spec.ingress[0].from[1]"},
			Allow:    []string{"prod/web > dev/web tcp/80"},
			Deny:     []string{"dev/web > dev/db tcp/80"},
		},
		{
			Line: unreadable, Name: "Pass and Deny: the rule denies everything", NoServer: true,
			ClusterPolicies: map[string]string{
				"a": `{tier: Admin, priority: 0, subject: {namespaces: {matchLabels: {env: dev}}}, ingress: [
  {action: Pass, from: [{namespaces: {}}], protocols: [{}]}]}`,
				"b": `{tier: Baseline, priority: 0, subject: {namespaces: {matchLabels: {env: prod}}}, egress: [
  {action: Deny, to: [], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}`,
			},
			Problems: []string{"spec.ingress[0].protocols[0]", "spec.egress[0].to"},
			Allow: []string{"dev/web > out tcp/80", "out > prod/web tcp/80",
				"node > dev/web tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/80", "out > dev/web icmp", "prod/web > out udp/80",
				"prod/web > ops/probe tcp/81"},
		},
		{
			Line: unreadable, Name: "whom it is for: all pods, and its rules only deny",
			NoServer: true,
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {}, ingress: [
  {action: Accept, from: [{namespaces: {}}]},
  {action: Pass, from: [{namespaces: {matchLabels: {env: prod}}}]}]}`},
			Problems: []string{"spec.subject"},
			Allow:    []string{"dev/web > dev/db tcp/80", "out > dev/web tcp/80"},
			Deny:     []string{"prod/web > dev/web tcp/80", "prod/web > ops/probe icmp"},
		},
		{
			Line: unreadable, Name: "domain names match nothing",
			ClusterPolicies: map[string]string{"a": `{tier: Admin, priority: 0, subject: {namespaces: {}}, egress: [
  {action: Accept, to: [{domainNames: [example.org]}, {networks: ["{{ip4 "out"}}/32"]}]},
  {action: Deny, to: [{networks: [0.0.0.0/0]}]}]}`},
			Problems: []string{"spec.egress[0].to[0].domainNames"},
			Allow:    []string{"dev/web > out tcp/80"},
			Deny:     []string{"dev/web > out2 tcp/80 v4"},
		},
	}
}
