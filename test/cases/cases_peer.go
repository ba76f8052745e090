package cases

func selectorCases() []Case {
	return []Case{
		{
			Line: "label selectors", Name: "matchLabels AND matchExpressions",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: Exists}]}}]}]}`},
			Allow: []string{"dev/web > ops/probe tcp/80"},
			Deny:  []string{"prod/web > ops/probe tcp/80", "dev/db > ops/probe tcp/80"},
		},
		{
			Line: "label selectors", Name: "NotIn matches objects without the key",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}}]}]}`},
			Allow: []string{"dev/web > ops/probe tcp/80", "ops/probe > ops/probe tcp/80"},
			Deny:  []string{"prod/web > ops/probe tcp/80", "out > ops/probe tcp/80"},
		},
		{
			Line: "label selectors", Name: "NotIn and DoesNotExist on pods without labels",
			Policies: map[string]string{
				"dev/p":  `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}]}]}`,
				"prod/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}]}]}`,
			},
			Allow: []string{"ops/probe > dev/db tcp/80", "ops/probe > prod/web tcp/80"},
			Deny: []string{"dev/web > dev/db tcp/80", "dev/web > prod/web tcp/80",
				"dev/db > prod/web tcp/80"},
		},
		{
			Line: "label selectors", Name: "In with several values; a value that is empty",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: env, operator: In, values: [prod, test]}]}, podSelector: {matchLabels: {empty: ""}}}]}]}`,
				"dev/p": `{podSelector: {matchLabels: {empty: ""}}, ingress: []}`,
			},
			Allow: []string{"prod/web > ops/probe tcp/80", "out > dev/web tcp/80"},
			Deny:  []string{"dev/web > ops/probe tcp/80"},
		},
		{
			Line: "label selectors", Name: "{} matches all",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80", "dev/db > dev/web udp/80"},
			Deny: []string{"prod/web > dev/web tcp/80", "ops/probe > dev/db tcp/80",
				"out > dev/web tcp/80"},
		},
		{
			Line: "label selectors", Name: "an absent spec.podSelector matches all",
			Policies: map[string]string{"dev/p": `{ingress: []}`},
			Deny:     []string{"out > dev/web tcp/80", "out > dev/db tcp/80"},
			Allow:    []string{"out > prod/web tcp/80"},
		},
		{
			Line: "label selectors", Name: "every namespace has kubernetes.io/metadata.name",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]}]}`},
			Allow: []string{"ops/probe > dev/web tcp/80"},
			Deny:  []string{"prod/web > dev/web tcp/80", "dev/web > dev/db tcp/80"},
		},
		{
			Line: "peer with podSelector only; namespaceSelector only; both; two items",
			Name: "podSelector: own namespace",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`},
			Allow: []string{"dev/web > dev/db tcp/80"},
			Deny:  []string{"prod/web > dev/db tcp/80"},
		},
		{
			Line: "peer with podSelector only; namespaceSelector only; both; two items",
			Name: "namespaceSelector: all pods of those namespaces",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: dev}}}]}]}`},
			Allow: []string{"dev/web > ops/probe tcp/80", "dev/db > ops/probe tcp/80"},
			Deny:  []string{"prod/web > ops/probe tcp/80"},
		},
		{
			Line: "peer with podSelector only; namespaceSelector only; both; two items",
			Name: "both in one item: AND",
			Policies: map[string]string{
				"ops/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: dev}}, podSelector: {matchLabels: {app: web}}}]}]}`},
			Allow: []string{"dev/web > ops/probe tcp/80"},
			Deny:  []string{"dev/db > ops/probe tcp/80", "prod/web > ops/probe tcp/80"},
		},
		{
			Line: "peer with podSelector only; namespaceSelector only; both; two items",
			Name: "two items: OR",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: prod}}}, {podSelector: {matchLabels: {app: web}}}]}]}`},
			Allow: []string{"prod/web > dev/db tcp/80", "dev/web > dev/db tcp/80"},
			Deny:  []string{"ops/probe > dev/db tcp/80"},
		},
		{
			Line: "selector peers",
			Name: "namespaceSelector {} is every pod, never outsiders or nodes",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {}}]}], egress: [{to: [{namespaceSelector: {}}]}]}`},
			Allow: []string{"prod/web > dev/web tcp/80", "dev/web > ops/probe tcp/80",
				"dev/web > dev/db udp/80"},
			Deny: []string{"out > dev/web tcp/80", "dev/web > out tcp/80", "dev/web > node tcp/80"},
		},
		{
			Line: "selector peers", Name: "a selector that picks nobody allows nobody",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: none}}}, {namespaceSelector: {matchLabels: {env: none}}}]}]}`},
			Deny: []string{"dev/web > dev/db tcp/80", "prod/web > dev/db tcp/80",
				"out > dev/db tcp/80"},
		},
	}
}

func blockCases() []Case {
	return []Case{
		{
			Line: "ipBlock with except", Name: "the exact difference",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.16/28]}}, {ipBlock: {cidr: "2001:db8:1::/64", except: ["2001:db8:1::20/124"]}}]}]}`},
			Allow: []string{"out > dev/web tcp/80", "out > dev/web icmp"},
			Deny:  []string{"out2 > dev/web tcp/80", "prod/web > dev/web tcp/80"},
		},
		{
			Line: "ipBlock with except",
			Name: "other rules and blocks still apply to the excepted range",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.20/32]}}]}, {from: [{ipBlock: {cidr: 192.0.2.20/31}}], ports: [{port: 81}]}]}`},
			Allow: []string{"out > dev/web tcp/80 v4", "out2 > dev/web tcp/81 v4"},
			Deny:  []string{"out2 > dev/web tcp/80 v4", "out > dev/web tcp/80 v6"},
		},
		{
			Line: "ipBlock with except", Name: "pods and nodes inside do match",
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress],
				ingress: [{from: [{ipBlock: {cidr: {{ip4 "dev/db"}}/32}}, {ipBlock: {cidr: {{ip6 "dev/db"}}/128}}]}],
				egress: [{to: [{ipBlock: {cidr: {{ip4 "node"}}/32}}, {ipBlock: {cidr: {{ip6 "node"}}/128}}]}]}`},
			Allow: []string{"dev/db > dev/web tcp/80", "dev/web > node tcp/80"},
			Deny:  []string{"prod/web > dev/web tcp/80", "dev/web > dev/db tcp/80"},
		},
		{
			Line: "ipBlock with except",
			Name: "overlapping ranges, and one that ends at the last address",
			Policies: map[string]string{"dev/p": `{podSelector: {}, ingress: [{from: [
				{ipBlock: {cidr: 192.0.0.0/16}}, {ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: 240.0.0.0/4}},
				{ipBlock: {cidr: "2000::/3", except: ["2001:db8:1::20/128"]}}, {ipBlock: {cidr: "ff00::/8"}}]}]}`},
			Allow: []string{"out > dev/web tcp/80", "out2 > dev/web tcp/80 v4"},
			Deny:  []string{"out2 > dev/web tcp/80 v6", "prod/web > dev/web tcp/80"},
		},
		{
			Line: "ipBlock with except", Name: "everything but one, in egress",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [{{ip4 "out2"}}/32]}}, {ipBlock: {cidr: "::/0", except: ["{{ip6 "out2"}}/128"]}}]}]}`},
			Allow: []string{"dev/web > out tcp/80", "dev/web > prod/web udp/80",
				"dev/web > node tcp/80"},
			Deny: []string{"dev/web > out2 tcp/80", "dev/web > out2 icmp"},
		},
		{
			Line: "one family's rule, the other's traffic", Name: "only an IPv4 block: no IPv6",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`},
			Allow: []string{"out > dev/web tcp/80 v4", "dev/web > out tcp/80 v4"},
			Deny:  []string{"out > dev/web tcp/80 v6", "dev/web > out tcp/80 v6"},
		},
		{
			Line: "one family's rule, the other's traffic", Name: "only an IPv6 block: no IPv4",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::/0"}}]}]}`},
			Allow: []string{"out > dev/web tcp/80 v6"},
			Deny:  []string{"out > dev/web tcp/80 v4"},
		},
		{
			Line: "CIDR spelling that an API server let in",
			Name: "host bits, leading zeros, IPv4-mapped", NoServer: true,
			Policies: map[string]string{
				"dev/p":  `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 192.000.002.099/24}}]}]}`,
				"dev/q":  `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: "::ffff:192.0.2.16/124"}}]}]}`,
				"prod/p": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "2001:DB8:1:0:0::20/64"}}]}]}`,
			},
			Allow: []string{"out > dev/web tcp/80 v4", "out2 > dev/db tcp/80 v4",
				"out > prod/web tcp/80 v6"},
			Deny: []string{"out > dev/web tcp/80 v6", "out > dev/db tcp/80 v4",
				"out > prod/web tcp/80 v4"},
		},
	}
}

func pairCases() []Case {
	return []Case{
		{
			Line: "any two pods, same node or not",
			Name: "the source's egress and the destination's ingress must both allow",
			Policies: map[string]string{
				"dev/out": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {env: prod}}}], ports: [{port: 80}, {port: 81}]}]}`,
				"prod/in": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: dev}}}], ports: [{port: 81}, {port: 8080}]}]}`,
			},
			Allow: []string{"dev/web > prod/web tcp/81"},
			Deny: []string{"dev/web > prod/web tcp/80", "dev/web > prod/web tcp/8080",
				"ops/probe > prod/web tcp/81", "dev/web > ops/probe tcp/80"},
		},
		{
			Line: "the pod itself", Name: "allowed; another replica isn't itself",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`},
			Allow: []string{"dev/web > dev/web tcp/80"},
			Deny:  []string{"dev/web > dev/db tcp/80"},
		},
		{
			Line: "its own node to a pod", Name: "always allowed",
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`},
			Allow: []string{"node > dev/web tcp/80", "node > dev/web udp/80",
				"node > dev/db icmp", "node > dev/web sctp/80"},
			Deny: []string{"out > dev/web tcp/80"},
		},
		{
			Line: "pod to its own node", Name: "judged as egress",
			Policies: map[string]string{
				"dev/p":  `{podSelector: {}, policyTypes: [Egress]}`,
				"prod/p": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: {{ip4 "node"}}/32}}, {ipBlock: {cidr: {{ip6 "node"}}/128}}], ports: [{port: 80}]}]}`,
			},
			Allow: []string{"ops/probe > node tcp/80", "prod/web > node tcp/80",
				"ops/probe > node icmp"},
			Deny: []string{"dev/web > node tcp/80", "dev/web > node udp/80", "dev/web > node icmp",
				"prod/web > node tcp/81"},
		},
		{
			Line: "replies", Name: "A may call B doesn't let B call A",
			Policies: map[string]string{
				"dev/p":  `{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {env: prod}}}]}]}`,
				"prod/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {env: dev}}}]}]}`,
			},
			Allow: []string{"dev/web > prod/web tcp/80", "dev/web > prod/web udp/80",
				"dev/db > prod/web sctp/80", "dev/web > prod/web icmp"},
			Deny: []string{"prod/web > dev/web tcp/80", "prod/web > dev/web udp/80",
				"prod/web > dev/web icmp"},
		},
	}
}

func unreadableCases() []Case {
	const line = "an unreadable field"
	return []Case{
		{
			Line: line, Name: "a port: only the item is lost", NoServer: true,
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: 70000}, {port: 80}, {port: 90, endPort: 85}, {endPort: 99}, {port: http, endPort: 99}, {port: "80"}, {port: 81, protocol: DCCP}]}]}`},
			Problems: []string{
				"spec.ingress[0].ports[0].port", "spec.ingress[0].ports[2].endPort",
				"spec.ingress[0].ports[3].endPort",
				"spec.ingress[0].ports[4].endPort", "spec.ingress[0].ports[5].port",
				"spec.ingress[0].ports[6].protocol",
			},
			Allow: []string{"out > dev/web tcp/80"},
			Deny:  []string{"out > dev/web tcp/81", "out > dev/web tcp/8080", "out > dev/web icmp"},
		},
		{
			Line: line, Name: "all ports lost: no port, not any port", NoServer: true,
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`},
			Problems: []string{"spec.ingress[0].ports[0].port"},
			Deny:     []string{"out > dev/web tcp/80", "out > dev/web icmp"},
		},
		{
			Line: line, Name: "a peer: only the item is lost", NoServer: true,
			Policies: map[string]string{"dev/p": `{podSelector: {}, ingress: [{from: [
				{}, {podSelector: {}, ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: everywhere}}, {ipBlock: {cidr: 10.0.0.0/33}},
				{podSelector: {matchExpressions: [{key: app, operator: Like, values: [web]}]}},
				{namespaceSelector: {matchExpressions: [{key: env, operator: In}]}},
				{namespaceSelector: {matchLabels: {env: prod}}}]}]}`},
			Problems: []string{
				"spec.ingress[0].from[0]", "spec.ingress[0].from[1]",
				"spec.ingress[0].from[2].ipBlock.cidr", "spec.ingress[0].from[3].ipBlock.cidr",
				"spec.ingress[0].from[4].podSelector.matchExpressions[0].operator",
				"spec.ingress[0].from[5].namespaceSelector.matchExpressions[0]",
			},
			Allow: []string{"prod/web > dev/web tcp/80"},
			Deny: []string{"out > dev/web tcp/80", "dev/web > dev/db tcp/80",
				"ops/probe > dev/web tcp/80"},
		},
		{
			Line: line, Name: "all peers lost: nobody, not anybody", NoServer: true,
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{}]}], egress: [{to: [{ipBlock: {cidr: ""}}]}]}`},
			Problems: []string{"spec.ingress[0].from[0]", "spec.egress[0].to[0].ipBlock.cidr"},
			Deny:     []string{"out > dev/web tcp/80", "dev/web > out tcp/80"},
		},
		{
			Line: line, Name: "a bad except: the whole ipBlock", NoServer: true,
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, nonsense]}}, {ipBlock: {cidr: 192.0.2.0/24, except: ["2001:db8::/32"]}}, {ipBlock: {cidr: 192.0.2.20/32}}]}]}`},
			Problems: []string{"spec.ingress[0].from[0].ipBlock.except[1]",
				"spec.ingress[0].from[1].ipBlock.except[0]"},
			Allow: []string{"out2 > dev/web tcp/80 v4"},
			Deny:  []string{"out > dev/web tcp/80", "out2 > dev/web tcp/80 v6"},
		},
		{
			Line: line, Name: "spec.podSelector: the requirement matches", NoServer: true,
			Policies: map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: Near}]}, ingress: []}`},
			Problems: []string{"spec.podSelector.matchExpressions[0].operator"},
			Allow:    []string{"out > dev/db tcp/80"},
			Deny:     []string{"out > dev/web tcp/80"},
		},
		{
			Line: line, Name: "an unknown policy type: the policy still isolates", NoServer: true,
			Policies: map[string]string{
				"dev/p": `{podSelector: {}, policyTypes: [Sideways], egress: [{ports: [{port: 80}]}]}`},
			Problems: []string{"spec.policyTypes[0]"},
			Allow:    []string{"dev/web > out tcp/80"},
			Deny:     []string{"out > dev/web tcp/80", "dev/web > out tcp/81"},
		},
	}
}
