package ruleset_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/ruleworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// hostileText draws what may stand where a text is expected.
func hostileText(good ...string) *rapid.Generator[string] {
	junk := []string{"", " ", "a b", "\x00", "\"", "}; flush ruleset; {", "%s%n", "../..", "-", "ü",
		strings.Repeat("x", 300), "0", "-1", "65536", "1e3"}
	return rapid.SampledFrom(append(junk, good...))
}

// hostileSpec draws a NetworkPolicySpec as JSON, each field of which may be anything that JSON can
// say in its place.
func hostileSpec(t *rapid.T) []byte {
	labels := func() any {
		if rapid.Bool().Draw(t, "absent") {
			return nil
		}
		return map[string]any{
			"matchLabels": map[string]string{
				hostileText("app", "a/b").Draw(t, "key"): hostileText("web").Draw(t, "value")},
			"matchExpressions": []any{map[string]any{
				"key": hostileText("app").Draw(t, "key"),
				"operator": hostileText("In", "NotIn", "Exists", "DoesNotExist").
					Draw(t, "operator"),
				"values": rapid.SliceOfN(hostileText("web", "db"), 0, 3).Draw(t, "values"),
			}},
		}
	}
	cidr := func() string {
		return hostileText("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/9",
			"255.255.255.255/32", "128.0.0.0/1", "ffff::/16",
			"::ffff:10.0.0.0/104", "010.1.1.1/8", "fe80::1%eth0/64", "10.0.0.0/33").Draw(t, "cidr")
	}
	peer := func() any {
		out := map[string]any{}
		if rapid.Bool().Draw(t, "block") {
			out["ipBlock"] = map[string]any{"cidr": cidr(),
				"except": []string{cidr(), cidr()}[:rapid.IntRange(0, 2).Draw(t, "excepts")]}
		}
		if rapid.IntRange(0, 2).Draw(t, "selects") == 0 {
			out["podSelector"], out["namespaceSelector"] = labels(), labels()
		}
		return out
	}
	port := func() any {
		out := map[string]any{}
		if rapid.Bool().Draw(t, "number") {
			out["port"] = rapid.SampledFrom([]int{-1, 0, 1, 79, 80, 81, 65535, 65536, 1 << 30}).
				Draw(t, "port")
		} else if rapid.Bool().Draw(t, "name") {
			out["port"] = hostileText("http", "query").Draw(t, "port")
		}
		if rapid.Bool().Draw(t, "protocol") {
			out["protocol"] = hostileText("TCP", "UDP", "SCTP", "ICMP").Draw(t, "protocol")
		}
		if rapid.IntRange(0, 3).Draw(t, "range") == 0 {
			out["endPort"] = rapid.SampledFrom([]int{-1, 0, 80, 90, 65535, 65536}).
				Draw(t, "endPort")
		}
		return out
	}
	rules := func(peers string) []any {
		var out []any
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			r := map[string]any{}
			for range rapid.IntRange(0, 2).Draw(t, "peers") {
				of, _ := r[peers].([]any)
				r[peers] = append(of, peer())
			}
			for range rapid.IntRange(0, 3).Draw(t, "ports") {
				of, _ := r["ports"].([]any)
				r["ports"] = append(of, port())
			}
			out = append(out, r)
		}
		return out
	}
	spec := map[string]any{
		"podSelector": labels(), "ingress": rules("from"), "egress": rules("to"),
		"policyTypes": rapid.SliceOfN(hostileText("Ingress", "Egress"), 0, 2).Draw(t, "types"),
	}
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestHostilePolicies adds policies of arbitrary fields to a node, one after the other: the kernel
// takes each ruleset as it is, nft lists it and reads its listing, and all other parts are as
// before.
func TestHostilePolicies(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	table, err := table.Open(table.Options{NetNS: node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	w := ruleworld.New(t)
	before := w.Have.Clone()
	if err := table.Sync(context.Background(), w.Have.Clone()); err != nil {
		t.Fatal(err)
	}
	specs := make([][]byte, 0, 60)
	for _, spec := range hostilePolicies {
		specs = append(specs, []byte(spec))
	}
	random := 40
	if os.Getenv("SLUICE_LONG") != "" {
		random = 1000
	}
	draw := rapid.Custom(hostileSpec)
	for i := range random {
		specs = append(specs, draw.Example(i))
	}
	for i, spec := range specs {
		np := &networkingv1.NetworkPolicy{}
		if err := json.Unmarshal(spec, &np.Spec); err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		np.Namespace, np.Name = "dev", strings.Repeat("n", 1+i*4%250)+fmt.Sprint(i)
		checkPolicy(t, np, len(spec))
		parsed := policy.Parse(np)
		w.Cluster.SetPolicy(parsed)
		patch := w.Render.Patch(w.Cluster, w.Cluster.Take())
		if err := table.Apply(context.Background(), patch); err != nil {
			t.Fatalf("the kernel refuses what becomes of %s: %v", spec, err)
		}
		if i%10 != 9 && i != len(specs)-1 { // they add up
			continue
		}
		if list, err := table.Check(context.Background()); err != nil || len(list) > 0 {
			t.Fatalf("%v, differs:\n%s", err, strings.Join(list, "\n"))
		}
		for _, k := range w.Cluster.Policies() {
			if !strings.HasPrefix(k.Name, "stays") {
				w.Cluster.DeletePolicy(k)
			}
		}
		if err := table.Apply(context.Background(),
			w.Render.Patch(w.Cluster, w.Cluster.Take())); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.Render.Ruleset(w.Cluster); got.String() != before.String() {
		t.Errorf("they left something:\n%s", got)
	}
	t.Logf("proof: %d hostile policies, each as the kernel has it", len(specs))
}
