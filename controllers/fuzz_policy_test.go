package controllers

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// fuzzWorld is the world of the meaning cases, with a policy in each namespace, as it would be in the kernel.
type fuzzWorld struct {
	cluster *policy.Cluster
	render  *Renderer
	have    *nft.Ruleset
}

func newFuzzWorld(t testing.TB) *fuzzWorld {
	t.Helper()
	w := &fuzzWorld{cluster: policy.NewCluster(policy.Options{Node: cases.NodeName}), render: NewRenderer(RulesetConfig{LogPerSecond: 10})}
	for _, ns := range cases.Namespaces() {
		w.cluster.SetNamespace(ns.Name, ns.Labels)
	}
	w.cluster.SetNode(policy.NodeFrom(cases.Node()))
	for i, in := range cases.Pods() {
		p := policy.PodFrom(in)
		w.cluster.SetPod(p)
		w.cluster.SetEndpoint(policy.Endpoint{ID: fmt.Sprint(i), Pod: p.ID, Interface: fmt.Sprintf("slup%d", i), Addresses: p.Addresses})
	}
	for _, namespace := range []string{"dev", "prod"} {
		np := mustDecode[networkingv1.NetworkPolicy](t, `{"metadata":{"namespace":"`+namespace+`","name":"stays"},"spec":{"podSelector":{},
			"ingress":[{"from":[{"ipBlock":{"cidr":"192.0.2.0/24","except":["192.0.2.20/32"]}},{"namespaceSelector":{}}],"ports":[{"port":"http"},{"port":53,"protocol":"UDP"}]}],
			"egress":[{"to":[{"podSelector":{"matchLabels":{"app":"db"}}}]}],"policyTypes":["Ingress","Egress"]}}`)
		w.cluster.SetPolicy(policy.Parse(&np))
	}
	w.cluster.Take()
	w.have = w.render.Ruleset(w.cluster)
	return w
}

func mustDecode[T any](t testing.TB, text string) (out T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// change has the model changed, and the ruleset with it.
func (w *fuzzWorld) change(f func(c *policy.Cluster)) {
	f(w.cluster)
	w.have.Merge(w.render.Patch(w.cluster, w.cluster.Take()))
}

// hostilePolicies are specs with one thing that is out of the ordinary.
var hostilePolicies = []string{
	`{}`,
	`{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["a b","web"]},{"key":"","operator":"?"}]},"ingress":[{}]}`,
	`{"podSelector":{"matchLabels":{"":"","a/b/c":"x"}},"policyTypes":["ingress","Egress",""],"egress":[{}]}`,
	`{"ingress":[{"from":[{}]},{"from":[null],"ports":[null]},{"ports":[{"port":0},{"port":-1},{"port":65536},{"port":"a b"},{"port":""}]}]}`,
	`{"ingress":[{"ports":[{"port":80},{"port":80,"endPort":90},{"port":81}]}]}`,
	`{"ingress":[{"ports":[{"protocol":"TCP","port":80,"endPort":79},{"endPort":5},{"port":"http","endPort":9},{"protocol":"","port":1}]}]}`,
	`{"ingress":[{"ports":[{"port":1,"endPort":65535},{"protocol":"UDP"},{"protocol":"SCTP","port":7},{"protocol":"ICMP"},{"port":"http"},{"port":"query","protocol":"UDP"}],
		"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8","0.0.0.0/1","255.255.255.255/32"]}}]}]}`,
	`{"ingress":[{"from":[{"ipBlock":{"cidr":"::/0","except":["::/1","ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"]}},{"ipBlock":{"cidr":"::ffff:10.0.0.0/104"}}]}]}`,
	`{"ingress":[{"from":[{"ipBlock":{"cidr":"010.0.0.1/8","except":["10.0.0.0/8"]}},{"ipBlock":{"cidr":"10.0.0.0/8","except":["11.0.0.0/8"]}},
		{"ipBlock":{"cidr":"10.0.0.0/33"}},{"ipBlock":{"cidr":""}},{"ipBlock":{"cidr":"fe80::1%eth0/64"}}]}]}`,
	`{"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"},"podSelector":{}},{"namespaceSelector":{"matchLabels":{"x":"a b"}}},{"podSelector":{"matchExpressions":[{"key":"k","operator":"NotIn"}]}}]}]}`,
	`{"egress":[{"to":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"k","operator":"Exists","values":["v"]},{"key":"k","operator":"DoesNotExist"}]}}],"ports":[{"port":"http"}]}]}`,
}

// FuzzPolicy adds any NetworkPolicy to a node, and takes it away again. What becomes of it can be written; nothing that isn't of its own
// namespace's pods changes; who was isolated still is; its size in the kernel is bounded by that of the object; and then all is as
// before.
func FuzzPolicy(f *testing.F) {
	for _, spec := range hostilePolicies {
		f.Add("p", []byte(spec))
	}
	f.Add(strings.Repeat("a.", 126)+"a", []byte(`{"podSelector":{}}`))
	f.Add("\x00 \"}/..", []byte(`{"podSelector":{}}`))
	f.Fuzz(func(t *testing.T, name string, spec []byte) {
		np := &networkingv1.NetworkPolicy{}
		if json.Unmarshal(spec, &np.Spec) != nil || name == "stays" {
			return
		}
		np.Namespace, np.Name = "dev", name
		checkPolicy(t, np, len(spec))
	})
}

func checkPolicy(t testing.TB, np *networkingv1.NetworkPolicy, size int) {
	t.Helper()
	w := newFuzzWorld(t)
	before := w.have.Clone()
	parsed := policy.Parse(np)
	for _, p := range parsed.Problems {
		if !strings.HasPrefix(p.Field, "spec") || p.Expected == "" {
			t.Errorf("a problem that doesn't say what is wrong: %+v", p)
		}
		if len(p.String()) > 1024 {
			t.Errorf("a problem of %d bytes, which no Event takes", len(p.String()))
		}
	}
	if len(parsed.Problems) > 100 {
		t.Errorf("%d problems, each an Event", len(parsed.Problems))
	}
	w.change(func(c *policy.Cluster) { c.SetPolicy(parsed) })
	if err := writable(w.have); err != nil {
		t.Error(err)
	}
	if scratch := w.render.Ruleset(w.cluster); scratch.String() != w.have.String() {
		t.Errorf("from scratch it is another ruleset:\n%s\n%s", scratch, w.have)
	}
	checkOthers(t, before, w.have)
	if rules, most := countRules(w.have)-countRules(before), 2*(100+size+10_000); rules > most {
		t.Errorf("%d bytes become %d rules, want at most %d", size, rules, most)
	}
	w.change(func(c *policy.Cluster) { c.DeletePolicy(parsed.Key) })
	if w.have.String() != before.String() {
		t.Errorf("it left something:\n%s\n%s", before, w.have)
	}
}

// checkOthers wants everything as before that isn't about the pods of dev, and each dispatch that leads to a chain still to lead there.
func checkOthers(t testing.TB, before, after *nft.Ruleset) {
	t.Helper()
	for name, chain := range before.Chains {
		isTheirs := strings.HasPrefix(name, "pod/dev/") || strings.HasPrefix(name, "profile/")
		if now := after.Chains[name]; !isTheirs && (now == nil || !now.Equal(chain)) {
			t.Errorf("chain %s changed: %v", name, after.Chains[name])
		}
	}
	for name, set := range before.Sets {
		if after.Sets[name] == nil || !maps.Equal(set.Elements, after.Sets[name].Elements) {
			t.Errorf("set %s changed", name)
		}
	}
}

func countRules(r *nft.Ruleset) (count int) {
	for _, c := range r.Chains {
		count += len(c.Rules)
	}
	return count
}

// writable says what the kernel would refuse of a ruleset, or nft of its listing: names, references, elements that don't fit their set,
// ranges that overlap.
func writable(r *nft.Ruleset) error {
	for _, name := range slices.Concat(slices.Collect(maps.Keys(r.Sets)), slices.Collect(maps.Keys(r.Chains))) {
		if len(name) > 255 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") != "" {
			return fmt.Errorf("the name %q", name)
		}
	}
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			for _, s := range rule.Statements {
				if err := refersWell(r, s); err != nil {
					return fmt.Errorf("chain %s: %s: %w", c.Name, rule, err)
				}
			}
		}
	}
	for _, s := range r.Sets {
		if err := elementsFit(r, s); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	return nil
}

func refersWell(r *nft.Ruleset, s nft.Statement) error {
	fits := func(name string, fields []nft.Field) error {
		if set := r.Sets[name]; set == nil || len(set.Key) != len(fields) {
			return errors.New("no set for it")
		}
		return nil
	}
	switch s := s.(type) {
	case nft.InSet:
		return fits(s.Set, s.Fields)
	case nft.Dispatch:
		return fits(s.Map, s.Fields)
	case nft.MatchPort:
		if s.First == 0 || s.First > s.Last {
			return errors.New("no range")
		}
	case nft.Do:
		if s.Kind == nft.Jump && r.Chains[s.Chain] == nil {
			return errors.New("no chain")
		}
	}
	return nil
}

func elementsFit(r *nft.Ruleset, s *nft.Set) error {
	var last nft.Element
	for _, e := range slices.SortedFunc(maps.Keys(s.Elements), func(a, b nft.Element) int { return strings.Compare(a.First, b.First) }) {
		if strings.HasPrefix(e.Text(s.Key), "0x") || s.Interval == (e.Last == "") {
			return fmt.Errorf("%s isn't of its type", e)
		}
		if s.Interval && (e.Last < e.First || last.Last >= e.First) {
			return fmt.Errorf("%s after %s", e.Text(s.Key), last.Text(s.Key))
		}
		if v := s.Elements[e]; v.Kind == nft.Jump && r.Chains[v.Chain] == nil {
			return fmt.Errorf("no chain %s", v.Chain)
		}
		last = e
	}
	return nil
}

// FuzzPod adds any pod of another node. Its addresses get into the sets that select it, and nothing else changes; who isn't a unicast
// address is nobody; and without it all is as before.
func FuzzPod(f *testing.F) {
	for _, pod := range []string{
		`{"status":{"podIP":"10.244.2.7","podIPs":[{"ip":"10.244.2.7"},{"ip":"fd00:10:244:2::7"}]},"metadata":{"labels":{"app":"db"}}}`,
		`{"status":{"podIP":"0.0.0.0","podIPs":[{"ip":"::"},{"ip":"127.0.0.1"},{"ip":"224.0.0.1"},{"ip":"255.255.255.255"},{"ip":"fe80::1%eth0"},{"ip":"ff02::1"},{"ip":"::ffff:10.0.0.1"},{"ip":""}]}}`,
		`{"status":{"podIP":"10.244.1.10"},"spec":{"containers":[{"ports":[{"name":"http","containerPort":0},{"name":"http","containerPort":70000},{"name":"","containerPort":1},
			{"name":"http","containerPort":81,"protocol":"X"},{"name":"a b","containerPort":1},{"name":"http","containerPort":80},{"name":"http","containerPort":80}]}]}}`,
		`{"metadata":{"labels":{"app":"db","":"\u0000"},"annotations":{"kubernetes.io/config.mirror":"x"},"deletionTimestamp":"2026-01-01T00:00:00Z"},"status":{"phase":"?","podIP":"10.244.1.10"}}`,
		`{"spec":{"hostNetwork":true,"nodeName":"node"},"status":{"podIP":"198.51.100.1"}}`,
	} {
		f.Add("prod", "other", []byte(pod))
	}
	f.Fuzz(func(t *testing.T, namespace, name string, object []byte) {
		in := &corev1.Pod{}
		if json.Unmarshal(object, in) != nil {
			return
		}
		in.Namespace, in.Name, in.UID = namespace, name, "theirs"
		p := policy.PodFrom(in)
		for _, a := range p.Addresses {
			if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("a pod with the address %s", a)
			}
		}
		if isOurs := slices.ContainsFunc(cases.Pods(), func(own *corev1.Pod) bool { return own.Namespace == namespace && own.Name == name }); isOurs {
			return // it takes the place of one of this node's
		}
		w := newFuzzWorld(t)
		before := w.have.Clone()
		w.change(func(c *policy.Cluster) { c.SetPod(p) })
		if err := writable(w.have); err != nil {
			t.Error(err)
		}
		for name, chain := range before.Chains {
			if !w.have.Chains[name].Equal(chain) {
				t.Errorf("chain %s changed", name)
			}
		}
		for name, set := range before.Sets {
			isOfPods := strings.HasPrefix(name, "pods/") || strings.HasPrefix(name, "named-port/")
			if !isOfPods && !maps.Equal(set.Elements, w.have.Sets[name].Elements) {
				t.Errorf("set %s changed", name)
			}
			for e := range w.have.Sets[name].Elements {
				if _, was := set.Elements[e]; !was && !slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return strings.HasPrefix(e.First, string(a.AsSlice())) }) {
					t.Errorf("set %s has %s, which isn't the pod's", name, e)
				}
			}
		}
		w.change(func(c *policy.Cluster) { c.DeletePod(namespace, name) })
		if w.have.String() != before.String() {
			t.Errorf("it left something:\n%s\n%s", before, w.have)
		}
	})
}
