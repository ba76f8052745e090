package policy_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

func parseCluster(t testing.TB, spec string) (policy.Policy, error) {
	t.Helper()
	cnp := &networkpolicyapi.ClusterNetworkPolicy{}
	cnp.Name = "x"
	err := yaml.Unmarshal([]byte(spec), &cnp.Spec)
	return policy.ParseCluster(cnp), err
}

// TestClusterProblems: what can't be read is named, with its value and what was expected.
func TestClusterProblems(t *testing.T) {
	t.Parallel()
	const head = "tier: Admin\npriority: 0\nsubject: {namespaces: {}}\n"
	const ingress, egress = head + "ingress: [{action: ", head + "egress: [{action: "
	const ports = ", from: [{namespaces: {}}], protocols: ["
	for _, c := range []struct{ spec, field, value, expected string }{
		{"tier: Root\nsubject: {namespaces: {}}", "spec.tier", "Root",
			"Admin or Baseline; the policy is asked first, and its rules only deny"},
		{"tier: Admin\nsubject: {}", "spec.subject", "0 fields",
			"one of namespaces and pods; the policy is for all pods, and its rules only deny"},
		{"tier: Admin\npriority: 1001\nsubject: {namespaces: {}}", "spec.priority", "1001",
			"a number from 0 to 1000; it is ordered as it is"},
		{ingress + "Allow, from: [{namespaces: {}}]}]", "spec.ingress[0].action", "Allow",
			"Accept, Deny or Pass; the rule denies"},
		{ingress + "Accept, from: []}]", "spec.ingress[0].from", "none",
			"at least one peer; the rule matches nothing"},
		{egress + "Pass, to: [{}]}]", "spec.egress[0].to[0]", "0 fields",
			"exactly one kind of peer that is known here; the rule denies everything"},
		{egress + "Deny, to: [{networks: [10.0.0.0/8, 10.0.0/8]}]}]",
			"spec.egress[0].to[0].networks[1]", "10.0.0/8",
			"an IPv4 or IPv6 prefix such as 10.0.0.0/8; the rule denies everything"},
		{egress + "Accept, to: [{nodes: {}}]}]", "spec.egress[0].to[0].nodes", "a selector",
			"another kind of peer: nodes aren't supported; the rule matches nothing"},
		{egress + "Deny, to: [{domainNames: [a.example]}]}]",
			"spec.egress[0].to[0].domainNames", "[a.example]",
			"no names in a rule that denies or passes; the rule denies everything"},
		{ingress + "Accept" + ports + "{tcp: {}}]}]",
			"spec.ingress[0].protocols[0].tcp.destinationPort", "neither or both",
			"one of number and range; the rule matches nothing"},
		{ingress + "Accept" + ports + "{udp: {destinationPort: {range: {start: 9, end: 8}}}}]}]",
			"spec.ingress[0].protocols[0].udp.destinationPort", "9-8",
			"numbers from 1 to 65535, the first not above the last; the rule matches nothing"},
		{egress + "Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: a}]}]",
			"spec.egress[0].protocols", "destinationNamedPort",
			"only numbers of ports beside networks; the rule denies everything"},
	} {
		p, err := parseCluster(t, c.spec)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
		}
		want := policy.Problem{Field: c.field, Value: c.value, Expected: c.expected}
		if len(p.Problems) != 1 || p.Problems[0] != want {
			t.Errorf("%s:\n got %v\nwant %s", c.spec, p.Problems, want)
		}
	}
}

// TestClusterPolicyBound: one with too many look-ups denies everything, in the directions that it
// has rules for.
func TestClusterPolicyBound(t *testing.T) {
	t.Parallel()
	rules := strings.Repeat("{action: Accept, from: [{namespaces: {}}]},", policy.MaxPolicyClauses+1)
	p, err := parseCluster(t, "tier: Admin\nsubject: {namespaces: {}}\ningress: ["+rules+"]")
	if err != nil {
		t.Fatal(err)
	}
	if p.Egress != nil || len(p.Ingress.Rules) != 1 || len(p.Problems) != 1 ||
		!deniesAll(p.Ingress.Rules[0]) {
		t.Errorf("it has %+v, %v", p.Ingress, p.Problems)
	}
}

func deniesAll(r policy.Rule) bool {
	return r.Verdict == policy.Deny && r.AnyPeer && r.AnyPort
}

// parseObject reads a spec of any shape, as an API server could send it.
func parseObject(spec string) (policy.Policy, error) {
	var content any
	err := yaml.Unmarshal([]byte(spec), &content)
	return policy.ParseClusterObject("x", map[string]any{"spec": content}), err
}

// TestObjectsOfOtherShapes: a spec whose fields have other types than the API says denies
// everything, and is asked first.
func TestObjectsOfOtherShapes(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{`text`, `[]`, `5`, `{tier: 5}`, `{priority: "1"}`,
		`{priority: 4294967296}`, `{subject: []}`, `{ingress: {action: Deny}}`,
		`{egress: [{action: Accept, to: [{networks: 5}]}]}`,
		`{egress: [{action: Accept, to: [{networks: [10.0.0.0/8]}],
			protocols: [{tcp: {destinationPort: {number: 4294967376}}}]}]}`, // 80 in 32 bits
	} {
		p, err := parseObject(spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Problems) != 1 || p.Problems[0].Field != "spec" {
			t.Errorf("%s: problems %v", spec, p.Problems)
		}
		for _, d := range policy.Directions {
			if s := p.Section(d); s == nil || len(s.Rules) != 1 || !deniesAll(s.Rules[0]) {
				t.Errorf("%s: %s is %+v", spec, d, s)
			}
		}
		first := policy.Policy{Key: policy.Key{Name: "a"}, Tier: policy.TierAdmin}
		if p.Compare(&first) >= 0 || p.Key.Name != "x" {
			t.Errorf("%s: it is %+v", spec, p)
		}
	}
	var many strings.Builder
	for i := range 200 {
		fmt.Fprintf(&many, "x%d: 1, ", i)
	}
	if p, err := parseObject("{" + many.String() + "tier: Admin}"); err != nil ||
		len(p.Problems) != 1 || !deniesAll(p.Ingress.Rules[0]) {
		t.Errorf("more unknown fields than are told apart: %+v, %v", p, err)
	}
	for _, spec := range []string{
		`{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`,
		`{tier: Baseline, priority: 1, subject: {namespaces: {}}, egress: [
			{action: Accept, to: [{networks: [10.0.0.0/8]}]}]}`,
	} {
		want, err := parseCluster(t, spec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseObject(spec)
		if err != nil || len(got.Problems) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %+v, expected %+v", spec, err, got, want)
		}
	}
	if p := policy.ParseClusterObject("x", nil); len(p.Problems) == 0 {
		t.Error("no spec is no problem")
	}
}

// TestUnknownFields: a field that isn't known may narrow a rule, so the rule is closed; one beside
// the rules has the policy deny only, one of the subject for all pods.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	const spec = `{tier: Admin, priority: 1, %s subject: {namespaces: {matchLabels: {a: b}} %s}, ingress: [
		{action: Accept, from: [{namespaces: {}}] %s},
		{action: Pass, from: [{namespaces: {} %s}]},
		{action: Accept, from: [{pods: {podSelector: {matchLabels: {c: d}}}}],
			protocols: [{tcp: {destinationPort: {number: 80 %s}}}]}]}`
	const accept, pass, deny, nothing = "accept", "pass", "deny", "nothing"
	for _, c := range []struct {
		at    int // the place of the field
		text  string
		field string
		rules [3]string
		all   bool // the subject is all pods
	}{
		{at: -1, rules: [3]string{accept, pass, accept}},
		// drafts of v1alpha2 said protocols so
		{at: 2, text: ", ports: [{portNumber: {port: 443}}]", field: "spec.ingress[0].ports",
			rules: [3]string{nothing, pass, accept}},
		{at: 3, text: ", zone: a", field: "spec.ingress[1].from[0].zone",
			rules: [3]string{accept, deny, accept}},
		{at: 4, text: ", Number: 81",
			field: "spec.ingress[2].protocols[0].tcp.destinationPort.Number",
			rules: [3]string{accept, pass, nothing}},
		{at: 0, text: "until: noon,", field: "spec.until",
			rules: [3]string{nothing, deny, nothing}},
		{at: 1, text: ", nodes: {}", field: "spec.subject.nodes",
			rules: [3]string{nothing, deny, nothing}, all: true},
	} {
		var texts [5]any
		for i := range texts {
			texts[i] = ""
			if i == c.at {
				texts[i] = c.text
			}
		}
		p, err := parseObject(fmt.Sprintf(spec, texts[:]...))
		if err != nil {
			t.Fatal(err)
		}
		if named := len(p.Problems) == 1 && p.Problems[0].Field == c.field; named == (c.at < 0) ||
			c.at < 0 && len(p.Problems) > 0 {
			t.Errorf("%s: problems %v", c.text, p.Problems)
		}
		var got [3]string
		for i, r := range p.Ingress.Rules {
			if got[i] = r.Verdict.String(); !r.AnyPeer && len(r.Peers) == 0 {
				got[i] = nothing
			}
		}
		if got != c.rules {
			t.Errorf("%s: rules %v, expected %v", c.text, got, c.rules)
		}
		if all := p.Subject.Key() == (selector.Selector{}).Key(); all != c.all {
			t.Errorf("%s: its subject is %v", c.text, p.Subject)
		}
	}
}

// FuzzParseCluster: whatever is in the fields, nothing of it opens more: a rule without peers or
// without ports denies all or matches nothing, a policy that can't be placed only denies, and its
// cost and problems are bounded.
func FuzzParseCluster(f *testing.F) {
	for _, seed := range []string{
		`{tier: Admin, priority: 3, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}`,
		`{tier: Odd, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}, egress: [
  {action: Pass, to: [{networks: [0.0.0.0/0, "::/0"]}, {nodes: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}`,
		`{subject: {namespaces: {matchExpressions: [{key: a, operator: Odd}]}}, egress: [
  {action: Accept, to: [{domainNames: ["*.a.b"]}], protocols: [{destinationNamedPort: http}, {sctp: {destinationPort: {range: {start: 1, end: 9}}}}]}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		p, err := parseObject(spec)
		if err != nil {
			return // no API server sends it
		}
		if err := sound(&p); err != nil {
			t.Errorf("%v: %+v", err, p)
		}
		if len(p.Problems) > 51 {
			t.Errorf("%d problems", len(p.Problems))
		}
	})
}

// sound fails if a policy has what nobody could have written on purpose.
func sound(p *policy.Policy) error {
	if n := p.Ingress.CountClauses() + p.Egress.CountClauses(); n > policy.MaxPolicyClauses {
		return fmt.Errorf("%d clauses", n)
	}
	unplaced := slices.ContainsFunc(p.Problems, func(q policy.Problem) bool {
		return q.Field == "spec" || q.Field == "spec.tier" ||
			strings.HasPrefix(q.Field, "spec.subject")
	})
	for _, d := range policy.Directions {
		s := p.Section(d)
		if s == nil {
			continue
		}
		for _, r := range s.Rules {
			switch matches := r.AnyPeer || len(r.Peers) > 0; {
			case r.AnyPeer != (r.AnyPort && len(r.Peers) == 0 && r.Verdict == policy.Deny):
				return fmt.Errorf("any peer in a rule that doesn't deny all: %+v", r)
			case matches && !r.AnyPort && len(r.Ports)+len(r.Named) == 0:
				return fmt.Errorf("neither ports nor any: %+v", r)
			case unplaced && r.Verdict != policy.Deny && matches:
				return fmt.Errorf("a policy that isn't placed allows: %+v", r)
			}
		}
	}
	return nil
}
