package policy

import (
	"context"
	"encoding/json"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// truthCase is policies for the truth table. The evaluator says what they mean for each cell.
type truthCase struct {
	name     string
	policies map[string]string // specs by namespace/name
	// allows is what they mean, written by hand, for cells that don't lead from a pod to itself.
	// Nil: the evaluator alone judges.
	allows func(c *cell) bool
	// also is asked once every cell is as it must be.
	also func(ctx context.Context, w *world)
	fast bool
	// proxied: what it allows hangs on the address or the port at which a connection through a
	// Service arrives.
	proxied bool
}

func from(c *cell, ns string) bool { return c.from[:1] == ns }
func to(c *cell, ns string) bool   { return c.to[:1] == ns }
func tcp(c *cell) bool             { return c.protocol == testprogram.TCP }
func udp(c *cell) bool             { return c.protocol == testprogram.UDP }

// onWeb: the destination has this port under the name web.
func onWeb(c *cell) bool {
	number := 80
	if c.to[2:] == "c" {
		number = 81
	}
	return tcp(c) && c.port == number
}

var truthCases = []truthCase{
	{
		name: "deny all into y", fast: true,
		policies: map[string]string{"y/p": `{podSelector: {}}`},
		allows:   func(c *cell) bool { return !to(c, "y") },
	},
	{
		name:     "deny all out of x",
		policies: map[string]string{"x/p": `{podSelector: {}, policyTypes: [Egress]}`},
		allows:   func(c *cell) bool { return !from(c, "x") },
	},
	{
		name: "deny all, in and out, everywhere", fast: true,
		policies: map[string]string{
			"x/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
			"y/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
			"z/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		},
		allows: func(*cell) bool { return false },
	},
	{
		name: "by podSelector: a from b of its namespace",
		policies: map[string]string{
			"y/p": `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`},
		allows: func(c *cell) bool { return c.to != "y/a" || c.from == "y/b" },
	},
	{
		name: "by namespaceSelector: y from x",
		policies: map[string]string{
			"y/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`},
		allows: func(c *cell) bool { return !to(c, "y") || from(c, "x") },
	},
	{
		name: "by both in one peer: y from b of z", fast: true,
		policies: map[string]string{
			"y/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}, podSelector: {matchLabels: {pod: b}}}]}]}`},
		allows: func(c *cell) bool { return !to(c, "y") || c.from == "z/b" },
	},
	{
		name: "by one or the other: y from all of x, or from c of y",
		policies: map[string]string{
			"y/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}, {podSelector: {matchLabels: {pod: c}}}]}]}`},
		allows: func(c *cell) bool { return !to(c, "y") || from(c, "x") || c.from == "y/c" },
	},
	{
		name: "by matchExpressions",
		policies: map[string]string{
			"y/p": `{podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}, {key: none, operator: DoesNotExist}]},
			ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}, {key: ns, operator: Exists}]},
				podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [c]}]}}]}]}`},
		allows: func(c *cell) bool {
			return !to(c, "y") || c.to == "y/c" || !from(c, "x") && c.from[2:] != "c"
		},
	},
	{
		name: "by ipBlock: y from all pods' addresses except two", fast: true, proxied: true,
		policies: map[string]string{"y/p": `{podSelector: {}, ingress: [{from: [
			{ipBlock: {cidr: "{{ip4 "pods"}}", except: ["{{ip4 "x/a"}}/32", "{{ip4 "x/b"}}/32"]}},
			{ipBlock: {cidr: "{{ip6 "pods"}}", except: ["{{ip6 "x/a"}}/128", "{{ip6 "x/b"}}/128"]}}]}]}`},
		allows: func(c *cell) bool { return !to(c, "y") || c.from != "x/a" && c.from != "x/b" },
	},
	{
		name: "by ipBlock: x to one address, and to another at a port", proxied: true,
		policies: map[string]string{"x/p": `{podSelector: {}, policyTypes: [Egress], egress: [
			{to: [{ipBlock: {cidr: "{{ip4 "y/a"}}/32"}}, {ipBlock: {cidr: "{{ip6 "y/a"}}/128"}}]},
			{to: [{ipBlock: {cidr: "{{ip4 "z/b"}}/32"}}, {ipBlock: {cidr: "{{ip6 "z/b"}}/128"}}], ports: [{port: 81, protocol: UDP}]}]}`},
		allows: func(c *cell) bool {
			return !from(c, "x") || c.to == "y/a" || c.to == "z/b" && udp(c) && c.port == 81
		},
	},
	{
		name: "by ipBlock of IPv4 alone: no IPv6",
		policies: map[string]string{
			"y/p": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`},
		allows: func(c *cell) bool { return !to(c, "y") || c.family == corev1.IPv4Protocol },
	},
	{
		name: "by port: y at TCP 80", proxied: true,
		policies: map[string]string{"y/p": `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`},
		allows:   func(c *cell) bool { return !to(c, "y") || tcp(c) && c.port == 80 },
	},
	{
		name: "by port: y at UDP 81, and z at any UDP", proxied: true,
		policies: map[string]string{
			"y/p": `{podSelector: {}, ingress: [{ports: [{port: 81, protocol: UDP}]}]}`,
			"z/p": `{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`,
		},
		allows: func(c *cell) bool {
			return (!to(c, "y") || udp(c) && c.port == 81) && (!to(c, "z") || udp(c))
		},
	},
	{
		name: "by a range of ports: y from 81 to 90, z from 79 to 81", proxied: true,
		policies: map[string]string{
			"y/p": `{podSelector: {}, ingress: [{ports: [{port: 81, endPort: 90}]}]}`,
			"z/p": `{podSelector: {}, ingress: [{ports: [{port: 79, endPort: 81}]}]}`,
		},
		allows: func(c *cell) bool {
			return (!to(c, "y") || tcp(c) && c.port == 81) && (!to(c, "z") || tcp(c))
		},
	},
	{
		name: "by a port's name, into y", fast: true, proxied: true,
		policies: map[string]string{"y/p": `{podSelector: {}, ingress: [{ports: [{port: web}]}]}`},
		allows:   func(c *cell) bool { return !to(c, "y") || onWeb(c) },
	},
	{
		name: "by a port's name, out of x, to y", proxied: true,
		policies: map[string]string{
			"x/p": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: web}]}]}`},
		allows: func(c *cell) bool { return !from(c, "x") || to(c, "y") && onWeb(c) },
	},
	{
		name: "out of x to DNS only", fast: true, proxied: true,
		policies: map[string]string{"x/p": `{podSelector: {}, policyTypes: [Egress], egress: [
			{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]}`},
		allows: func(c *cell) bool { return !from(c, "x") },
		also:   resolves,
	},
	{
		name: "both ends must agree: x out to y at 80 and 81, y in from x at 81", fast: true,
		proxied: true,
		policies: map[string]string{
			"x/p": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 80}, {port: 81}]}]}`,
			"y/p": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 81}, {port: 81, protocol: UDP}]}]}`,
		},
		allows: func(c *cell) bool {
			out := !from(c, "x") || to(c, "y") && tcp(c)
			in := !to(c, "y") || from(c, "x") && c.port == 81 && (tcp(c) || udp(c))
			return out && in
		},
	},
	{
		name: "policies add up",
		policies: map[string]string{
			"y/deny":   `{podSelector: {}}`,
			"y/x-80":   `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 80}]}]}`,
			"y/z-udp":  `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}], ports: [{protocol: UDP}]}]}`,
			"y/open-c": `{podSelector: {matchLabels: {pod: c}}, ingress: [{}]}`,
		},
		allows: func(c *cell) bool {
			return !to(c, "y") || c.to == "y/c" || from(c, "x") && tcp(c) && c.port == 80 ||
				c.to == "y/a" && from(c, "z") && udp(c)
		},
	},
	{
		name: "may call, not be called: x out to y only, y out to nobody",
		policies: map[string]string{
			"x/p": `{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
			"y/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`,
		},
		allows: func(c *cell) bool {
			return from(c, "x") && to(c, "y") || from(c, "z") && to(c, "z")
		},
	},
	{
		name: "a mixture, judged by the evaluator alone",
		policies: map[string]string{
			"x/only-own": `{podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [c]}]}, policyTypes: [Ingress, Egress],
				ingress: [{from: [{podSelector: {}}], ports: [{port: web}, {port: query, protocol: UDP}]}],
				egress: [{to: [{podSelector: {}}, {ipBlock: {cidr: "{{ip4 "z/c"}}/32"}}]}]}`,
			"y/some": `{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{ports: [{port: 80, endPort: 81}]}, {to: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}]}]}`,
			"z/all":  `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [x, "y"]}]}}], ports: [{port: 81}, {port: query, protocol: UDP}]}]}`,
		},
	},
}

// resolves holds a pod of x to DNS: it must get answers.
func resolves(ctx context.Context, w *world) {
	gomega.Eventually(ctx, func(g gomega.Gomega, ctx context.Context) {
		stdout, err := w.pods["x/a"].Exec(ctx, "resolve", "kubernetes.default.svc")
		g.Expect(err).NotTo(gomega.HaveOccurred())
		var resolved testprogram.Resolved
		g.Expect(json.Unmarshal([]byte(stdout), &resolved)).To(gomega.Succeed())
		g.Expect(resolved.Addresses).NotTo(gomega.BeEmpty(), resolved.Error)
	}).WithContext(ctx).Should(gomega.Succeed(),
		"resolving a name from a pod that may talk to DNS only")
}
