// Package cases holds the cases that say what policies mean: for each line of the tables in
// docs/meaning.md, manifests and the flows that they must allow and deny. The same cases judge the
// evaluator, the compiled model, real packets in network namespaces, and clusters.
//
// A flow is written "dev/web > prod/web tcp/80": source, destination, protocol and port (none for
// icmp). It is meant for both families unless it ends in " v4" or " v6". Ends are pods as
// namespace/name, "node" (the node of the pods), or the hosts "out" and "out2" outside the pod
// network. Without a policy every such flow connects.
//
// Manifests are templates: {{ip4 "dev/web"}} and {{ip6 "out"}} stand for addresses, so that a case
// runs wherever its pods got their addresses from.
package cases

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"text/template"

	networkingv1 "k8s.io/api/networking/v1"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/yaml"
)

// Case is one named test of one line of the table.
type Case struct {
	// Line is the table's line that the case belongs to.
	Line string
	Name string
	// Policies maps namespace/name to the YAML of a NetworkPolicySpec.
	Policies map[string]string
	// ClusterPolicies maps names to the YAML of a ClusterNetworkPolicySpec.
	ClusterPolicies map[string]string
	// Allow and Deny list flows.
	Allow, Deny []string
	// Problems lists the fields that must be reported as unreadable.
	Problems []string
	// NoServer is set where an API server refuses the manifests.
	NoServer bool
}

// Flow is a parsed flow.
type Flow struct {
	From, To string
	Protocol string // tcp, udp, sctp, icmp
	Port     uint16
	// Families lists the IP versions the flow is meant for.
	Families []int
}

func (f Flow) String() string {
	s := fmt.Sprintf("%s > %s %s", f.From, f.To, f.Protocol)
	if f.Protocol != "icmp" {
		s += fmt.Sprintf("/%d", f.Port)
	}
	return s
}

// ParseFlow reads a flow.
func ParseFlow(s string) (Flow, error) {
	words := strings.Fields(s)
	if len(words) < 4 || len(words) > 5 || words[1] != ">" {
		return Flow{}, fmt.Errorf("flow %q: expected \"from > to protocol/port [v4|v6]\"", s)
	}
	f := Flow{From: words[0], To: words[2], Families: []int{4, 6}}
	protocol, port, hasPort := strings.Cut(words[3], "/")
	f.Protocol = protocol
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return Flow{}, fmt.Errorf("flow %q: port: %w", s, err)
		}
		f.Port = uint16(n)
	}
	if len(words) == 5 {
		switch words[4] {
		case "v4":
			f.Families = []int{4}
		case "v6":
			f.Families = []int{6}
		default:
			return Flow{}, fmt.Errorf("flow %q: family %q: expected v4 or v6", s, words[4])
		}
	}
	return f, nil
}

// MustFlows parses flows that are part of a test's text.
func MustFlows(texts []string) []Flow {
	out := make([]Flow, len(texts))
	for i, s := range texts {
		f, err := ParseFlow(s)
		if err != nil {
			panic(err)
		}
		out[i] = f
	}
	return out
}

// Render returns the case's policies. The function addr gives the address of an end of a flow in a
// family, 4 or 6.
func (c Case) Render(addr func(name string,
	family int) string) ([]*networkingv1.NetworkPolicy, error) {
	var out []*networkingv1.NetworkPolicy
	for key, spec := range c.Policies {
		np, err := RenderPolicy(key, spec, addr)
		if err != nil {
			return nil, err
		}
		out = append(out, np)
	}
	return out, nil
}

// RenderCluster returns the case's ClusterNetworkPolicies.
func (c Case) RenderCluster(addr func(name string,
	family int) string) ([]*networkpolicyapi.ClusterNetworkPolicy, error) {
	var out []*networkpolicyapi.ClusterNetworkPolicy
	for name, spec := range c.ClusterPolicies {
		cnp, err := RenderClusterPolicy(name, spec, addr)
		if err != nil {
			return nil, err
		}
		out = append(out, cnp)
	}
	return out, nil
}

// RenderClusterPolicy makes one ClusterNetworkPolicy of its name and its spec.
func RenderClusterPolicy(name, spec string,
	addr func(name string, family int) string) (*networkpolicyapi.ClusterNetworkPolicy, error) {
	cnp := &networkpolicyapi.ClusterNetworkPolicy{}
	cnp.Name = name
	return cnp, render(name, spec, addr, &cnp.Spec)
}

// RenderPolicy makes one policy of its namespace/name and its spec.
func RenderPolicy(key, spec string,
	addr func(name string, family int) string) (*networkingv1.NetworkPolicy, error) {
	np := &networkingv1.NetworkPolicy{}
	if err := render(key, spec, addr, &np.Spec); err != nil {
		return nil, err
	}
	np.Namespace, np.Name, _ = strings.Cut(key, "/")
	return np, nil
}

// render reads the spec of a policy.
func render(key, spec string, addr func(name string, family int) string, into any) error {
	t, err := template.New(key).Funcs(template.FuncMap{
		"ip4": func(name string) string { return addr(name, 4) },
		"ip6": func(name string) string { return addr(name, 6) },
	}).Parse(spec)
	if err != nil {
		return fmt.Errorf("policy %s: %w", key, err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, nil); err != nil {
		return fmt.Errorf("policy %s: %w", key, err)
	}
	if err := yaml.UnmarshalStrict(text.Bytes(), into); err != nil {
		return fmt.Errorf("policy %s: %w", key, err)
	}
	return nil
}
