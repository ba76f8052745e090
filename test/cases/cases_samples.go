package cases

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// Samples returns a case for each sample of ClusterNetworkPolicies. The folder is
// config/samples/cluster of the repository. The first five are the user stories of the API's
// documentation.
func Samples(folder string) ([]Case, error) {
	out := samples()
	for i := range out {
		text, err := os.ReadFile(filepath.Join(folder, out[i].Name))
		if err != nil {
			return nil, fmt.Errorf("reading a sample: %w", err)
		}
		out[i].Line, out[i].ClusterPolicies = "sample", map[string]string{}
		for manifest := range bytes.SplitSeq(text, []byte("\n---\n")) {
			var policy struct {
				Metadata struct{ Name string }
				Spec     any
			}
			if err := yaml.Unmarshal(manifest, &policy); err != nil {
				return nil, fmt.Errorf("reading sample %s: %w", out[i].Name, err)
			}
			spec, err := yaml.Marshal(policy.Spec)
			if err != nil {
				return nil, fmt.Errorf("reading sample %s: %w", out[i].Name, err)
			}
			out[i].ClusterPolicies[policy.Metadata.Name] = string(spec)
		}
	}
	return out, nil
}

func samples() []Case {
	return []Case{
		{
			Name: "deny-at-cluster-level.yaml",
			Policies: map[string]string{
				"prod/open": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`},
			Allow: []string{"out > prod/web tcp/80", "prod/web > out tcp/80",
				"dev/web > dev/db tcp/80"},
			Deny: []string{"dev/web > prod/web tcp/80", "ops/probe > prod/web udp/80",
				"prod/web > dev/db tcp/80"},
		},
		{
			Name:     "allow-at-cluster-level.yaml",
			Policies: map[string]string{"dev/deny": denyDev},
			Allow:    []string{"ops/probe > dev/web tcp/8080"},
			Deny:     []string{"ops/probe > dev/web tcp/80", "dev/db > dev/web tcp/8080"},
		},
		{
			Name: "delegate.yaml",
			Policies: map[string]string{
				"dev/web": `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`},
			Allow: []string{"prod/web > dev/web tcp/80", "ops/probe > dev/db tcp/80"},
			Deny:  []string{"prod/web > dev/web tcp/81", "prod/web > dev/db tcp/80"},
		},
		{
			Name: "isolate-tenants.yaml",
			Allow: []string{"dev/web > dev/db tcp/80", "ops/probe > dev/web tcp/80",
				"dev/web > ops/probe tcp/80"},
			Deny: []string{"dev/web > prod/web tcp/80", "prod/web > dev/db udp/80"},
		},
		{
			Name: "default-deny.yaml",
			Policies: map[string]string{
				"dev/db": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}`},
			Allow: []string{"prod/web > dev/db tcp/80", "out > prod/web tcp/80",
				"dev/web > out tcp/80"},
			Deny: []string{"dev/web > prod/web tcp/80", "prod/web > dev/web tcp/80",
				"prod/web > dev/db tcp/81"},
		},
		// What it denies isn't in the world: TestGuardrail.
		{
			Name:  "guardrail.yaml",
			Allow: []string{"dev/web > out tcp/80", "dev/web > dev/db tcp/80"},
		},
	}
}
