package cases

// All returns every case, in the order of the table.
func All() []Case {
	var out []Case
	for _, part := range [][]Case{
		isolationCases(), ruleCases(), portCases(), namedPortCases(), selectorCases(), blockCases(),
		pairCases(), unreadableCases(),
	} {
		out = append(out, part...)
	}
	return out
}

func isolationCases() []Case {
	return []Case{
		{
			Line: "no policy that lists a direction selects the pod", Name: "no policy at all",
			Allow: []string{
				"dev/web > dev/db tcp/80", "dev/web > prod/web udp/81", "out > dev/web tcp/80",
				"dev/web > out tcp/80",
				"ops/probe > dev/web icmp", "dev/web > prod/web sctp/80", "node > dev/web tcp/80",
				"dev/web > node tcp/80",
			},
		},
		{
			Line: "no policy that lists a direction selects the pod",
			Name: "each direction is judged on its own",
			Policies: map[string]string{
				"dev/in": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}`},
			Allow: []string{"dev/web > dev/db tcp/80", "dev/web > out udp/80",
				"dev/web > node tcp/80", "out > dev/db tcp/80"},
			Deny: []string{"dev/db > dev/web tcp/80", "out > dev/web tcp/80",
				"prod/web > dev/web icmp"},
		},
		{
			Line: "policyTypes absent or []", Name: "absent without egress: ingress only",
			Policies: map[string]string{"dev/p": `{podSelector: {}}`},
			Allow:    []string{"dev/web > out tcp/80", "dev/web > prod/web tcp/80"},
			Deny:     []string{"out > dev/web tcp/80", "dev/web > dev/db tcp/80"},
		},
		{
			Line: "policyTypes absent or []", Name: "empty list with an egress rule: both",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: web}}, policyTypes: [], egress: [{ports: [{port: 80}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80", "dev/web > out tcp/80"},
			Deny:  []string{"dev/web > dev/db tcp/81", "dev/db > dev/web tcp/80"},
		},
		{
			Line: "policyTypes absent or []", Name: "egress [] alone leaves egress open",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: web}}, egress: []}`},
			Allow: []string{"dev/web > dev/db tcp/80", "dev/web > out udp/80"},
			Deny:  []string{"dev/db > dev/web tcp/80"},
		},
		{
			Line: "policyTypes absent or []", Name: "a section whose type isn't listed is ignored",
			Policies: map[string]string{
				"dev/p":  `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], ingress: [], egress: [{}]}`,
				"prod/p": `{podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: [{ports: [{port: 1}]}]}`,
			},
			Problems: []string{"spec.egress"},
			Allow: []string{"out > dev/web tcp/80", "dev/web > out tcp/80",
				"prod/web > out tcp/80", "out > prod/web tcp/80"},
		},
		{
			Line: "ingress/egress [], null or absent on a pod isolated for it",
			Name: "absent: nothing",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`},
			Allow: []string{"node > dev/web tcp/80", "prod/web > ops/probe tcp/80"},
			Deny: []string{
				"dev/web > dev/db tcp/80", "out > dev/web tcp/80", "dev/web > out udp/80",
				"dev/web > out icmp",
				"dev/web > node tcp/80", "out > dev/db sctp/80",
			},
		},
		{
			Line: "ingress/egress [], null or absent on a pod isolated for it",
			Name: "null and []: nothing",
			Policies: map[string]string{
				"dev/p": `{podSelector: null, policyTypes: [Ingress, Egress], ingress: [], egress: null}`},
			Deny: []string{"out > dev/web tcp/80", "dev/web > out tcp/80"},
		},
		{
			Line: "ingress/egress [], null or absent on a pod isolated for it",
			Name: "[{}]: everything",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`},
			Allow: []string{
				"out > dev/web tcp/80", "out > dev/web icmp", "dev/web > out sctp/80",
				"dev/web > dev/db udp/80", "dev/web > node tcp/80",
			},
		},
	}
}

func ruleCases() []Case {
	return []Case{
		{
			Line: "inside a rule", Name: "ports AND peers",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/81", "dev/web > dev/db udp/80",
				"prod/web > dev/db tcp/80", "out > dev/db tcp/80"},
		},
		{
			Line: "inside a rule", Name: "items OR, rules OR",
			Policies: map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [
				{from: [{podSelector: {}}, {namespaceSelector: {matchLabels: {env: prod}}}], ports: [{port: 80}, {port: 81, protocol: UDP}]},
				{from: [{ipBlock: {cidr: {{ip4 "out"}}/32}}, {ipBlock: {cidr: {{ip6 "out"}}/128}}]}]}`},
			Allow: []string{
				"dev/web > dev/db tcp/80", "dev/web > dev/db udp/81", "prod/web > dev/db tcp/80",
				"prod/web > dev/db udp/81",
				"out > dev/db tcp/8080", "out > dev/db icmp",
			},
			Deny: []string{"dev/web > dev/db tcp/81", "dev/web > dev/db udp/80",
				"ops/probe > dev/db tcp/80", "out2 > dev/db tcp/80"},
		},
		{
			Line: "inside a rule", Name: "policies OR, per direction",
			Policies: map[string]string{
				"dev/a": `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
				"dev/b": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}`,
				"dev/c": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`,
			},
			Allow: []string{"dev/web > dev/db tcp/80", "dev/web > out tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/81", "dev/web > out tcp/81",
				"out > dev/db tcp/80", "dev/db > dev/web tcp/80"},
		},
		{
			Line: "from/to empty or absent; ports empty or absent",
			Name: "no peers: anyone, both families",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [], ports: [{port: 80}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80", "out > dev/db tcp/80",
				"ops/probe > dev/db tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/81", "out > dev/db icmp"},
		},
		{
			Line: "from/to empty or absent; ports empty or absent",
			Name: "no ports: any port, any protocol, ICMP",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress],
				ingress: [{from: [{podSelector: {}}], ports: []}], egress: [{to: [{namespaceSelector: {matchLabels: {env: prod}}}]}]}`},
			Allow: []string{
				"dev/web > dev/db tcp/81", "dev/web > dev/db udp/80", "dev/web > dev/db sctp/80",
				"dev/web > dev/db icmp",
				"dev/db > prod/web udp/81", "dev/db > prod/web icmp",
			},
			Deny: []string{"out > dev/db icmp", "dev/db > dev/web icmp", "dev/db > out tcp/80"},
		},
	}
}

func portCases() []Case {
	return []Case{
		{
			Line: "ports item without a port", Name: "{} is every TCP port",
			Policies: map[string]string{"dev/p": `{podSelector: {}, ingress: [{ports: [{}]}]}`},
			Allow:    []string{"out > dev/web tcp/80", "out > dev/web tcp/8080"},
			Deny: []string{"out > dev/web udp/80", "out > dev/web icmp",
				"out > dev/web sctp/80"},
		},
		{
			Line: "ports item without a port", Name: "every port of that protocol only",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`},
			Allow: []string{"out > dev/web udp/80", "out > dev/web udp/81"},
			Deny:  []string{"out > dev/web tcp/80", "out > dev/web icmp"},
		},
		{
			Line: "port by number, range, name; TCP, UDP, SCTP, default TCP",
			Name: "a number, TCP by default",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`},
			Allow: []string{"out > dev/web tcp/80"},
			Deny: []string{"out > dev/web tcp/81", "out > dev/web udp/80",
				"out > dev/web sctp/80", "out > dev/web icmp"},
		},
		{
			Line: "port by number, range, name; TCP, UDP, SCTP, default TCP",
			Name: "a range, inclusive at both ends",
			Policies: map[string]string{
				"dev/p":  `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 81}]}]}`,
				"prod/p": `{podSelector: {}, ingress: [{ports: [{port: 81, endPort: 8080}]}]}`,
			},
			Allow: []string{"out > dev/web tcp/80", "out > dev/web tcp/81", "out > prod/web tcp/81",
				"out > prod/web tcp/8080"},
			Deny: []string{"out > dev/web tcp/8080", "out > prod/web tcp/80",
				"out > dev/web udp/80"},
		},
		{
			Line: "port by number, range, name; TCP, UDP, SCTP, default TCP",
			Name: "SCTP only still isolates TCP and UDP",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}`},
			Allow: []string{"out > dev/web sctp/80", "dev/web > dev/db sctp/80"},
			Deny:  []string{"out > dev/web tcp/80", "out > dev/web udp/80"},
		},
		{
			Line: "port by number, range, name; TCP, UDP, SCTP, default TCP",
			Name: "UDP only still isolates TCP and SCTP, in egress",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80, protocol: UDP}]}]}`},
			Allow: []string{"dev/web > out udp/80"},
			Deny: []string{"dev/web > out tcp/80", "dev/web > out sctp/80",
				"dev/web > out udp/81", "dev/web > out icmp"},
		},
		{
			Line: "port by number, range, name; TCP, UDP, SCTP, default TCP",
			Name: "several items, overlapping and adjacent",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 79, endPort: 81}, {port: 82, endPort: 90}, {port: 80, protocol: UDP}]}]}`},
			Allow: []string{"out > dev/web tcp/80", "out > dev/web tcp/81", "out > dev/web udp/80"},
			Deny: []string{"out > dev/web tcp/8080", "out > dev/web udp/81",
				"out > dev/web sctp/80"},
		},
		{
			Line: "port by number, range, name; TCP, UDP, SCTP, default TCP",
			Name: "several ranges of many ports",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: 70, endPort: 80}, {port: 8000, endPort: 8100}, {port: 80, protocol: UDP}]}]}`},
			Allow: []string{"out > dev/web tcp/80", "out > dev/web tcp/8080",
				"out > dev/web udp/80"},
			Deny: []string{"out > dev/web tcp/81", "out > dev/web udp/81",
				"out > dev/web sctp/80"},
		},
	}
}

func namedPortCases() []Case {
	return []Case{
		{
			Line: "named port", Name: "ingress: each selected pod's own number",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`},
			Allow: []string{"out > dev/web tcp/80", "out > dev/db tcp/8080",
				"dev/web > dev/db tcp/8080"},
			Deny: []string{"out > dev/web tcp/8080", "out > dev/db tcp/80", "out > dev/web udp/80"},
		},
		{
			Line: "named port", Name: "name and protocol must both match",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: query, protocol: UDP}, {port: signal}]}]}`},
			Allow: []string{"out > dev/web udp/80", "out > dev/db udp/81"},
			Deny:  []string{"out > dev/web tcp/80", "out > dev/db udp/80", "out > dev/db sctp/80"},
		},
		{
			Line: "named port", Name: "SCTP by name",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: signal, protocol: SCTP}]}]}`},
			Allow: []string{"out > dev/db sctp/80"},
			Deny:  []string{"out > dev/web sctp/80", "out > dev/db tcp/80"},
		},
		{
			Line: "named port", Name: "egress: the destination's number",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {env: dev}}}], ports: [{port: http}]}]}`},
			Allow: []string{"ops/probe > dev/web tcp/80", "ops/probe > dev/db tcp/8080"},
			Deny: []string{"ops/probe > dev/web tcp/8080", "ops/probe > dev/db tcp/80",
				"ops/probe > prod/web tcp/81", "ops/probe > out tcp/80"},
		},
		{
			Line: "named port",
			Name: "egress with to empty: any pod of any namespace, never an address that is no pod",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`},
			Allow: []string{"ops/probe > dev/web tcp/80", "ops/probe > dev/db tcp/8080",
				"ops/probe > prod/web tcp/81"},
			Deny: []string{"ops/probe > prod/web tcp/80", "ops/probe > out tcp/80",
				"ops/probe > out tcp/8080", "ops/probe > node tcp/80"},
		},
		{
			Line: "named port", Name: "egress to a block: a pod in the block",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: {{ip4 "dev/db"}}/32}}, {ipBlock: {cidr: {{ip6 "dev/db"}}/128}}], ports: [{port: http}]}]}`},
			Allow: []string{"ops/probe > dev/db tcp/8080"},
			Deny:  []string{"ops/probe > dev/web tcp/80", "ops/probe > dev/db tcp/80"},
		},
		{
			Line: "named port", Name: "beside a number",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}, {port: 81}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/8080", "dev/web > dev/db tcp/81",
				"dev/db > dev/web tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/80", "out > dev/db tcp/81",
				"out > dev/db tcp/8080"},
		},
		{
			Line: "named port", Name: "a name that nobody has",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: nobody}]}]}`},
			Deny: []string{"out > dev/web tcp/80", "out > dev/db tcp/8080"},
		},
	}
}
