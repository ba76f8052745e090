package ruleset_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// hostilePolicies are specs with one thing that is out of the ordinary.
var hostilePolicies = []string{
	`{}`,
	`{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["a b","web"]},{"key":"","operator":"?"}]},"ingress":[{}]}`,
	`{"podSelector":{"matchLabels":{"":"","a/b/c":"x"}},"policyTypes":["ingress","Egress",""],"egress":[{}]}`,
	`{"ingress":[{"from":[{}]},{"from":[null],"ports":[null]},{"ports":[{"port":0},{"port":-1},{"port":65536},{"port":"a b"},{"port":""}]}]}`,
	`{"ingress":[{"ports":[{"port":80},{"port":80,"endPort":90},{"port":81}]}]}`,
	`{"ingress":[{"ports":[{"port":1000},{"port":1000,"endPort":2000},{"port":1500,"endPort":3000}]}]}`,
	`{"ingress":[{"ports":[{"protocol":"TCP","port":80,"endPort":79},{"endPort":5},{"port":"http","endPort":9},{"protocol":"","port":1}]}]}`,
	`{"ingress":[{"ports":[{"port":1,"endPort":65535},{"protocol":"UDP"},{"protocol":"SCTP","port":7},{"protocol":"ICMP"},{"port":"http"},{"port":"query","protocol":"UDP"}],
		"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8","0.0.0.0/1","255.255.255.255/32"]}}]}]}`,
	`{"ingress":[{"from":[{"ipBlock":{"cidr":"::/0","except":["::/1","ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"]}},{"ipBlock":{"cidr":"::ffff:10.0.0.0/104"}}]}]}`,
	`{"ingress":[{"from":[{"ipBlock":{"cidr":"010.0.0.1/8","except":["10.0.0.0/8"]}},{"ipBlock":{"cidr":"10.0.0.0/8","except":["11.0.0.0/8"]}},
		{"ipBlock":{"cidr":"10.0.0.0/33"}},{"ipBlock":{"cidr":""}},{"ipBlock":{"cidr":"fe80::1%eth0/64"}}]}]}`,
	`{"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"},"podSelector":{}},{"namespaceSelector":{"matchLabels":{"x":"a b"}}},{"podSelector":{"matchExpressions":[{"key":"k","operator":"NotIn"}]}}]}]}`,
	`{"egress":[{"to":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"k","operator":"Exists","values":["v"]},{"key":"k","operator":"DoesNotExist"}]}}],"ports":[{"port":"http"}]}]}`,
}

// FuzzPolicy adds any NetworkPolicy to a node, and takes it away again. What becomes of it can be
// written; nothing that isn't of its own namespace's pods changes; who was isolated still is; its
// size in the kernel is bounded by that of the object; and then all is as before.
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
	w := ruleworld.New(t)
	before := w.Have.Clone()
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
	w.Change(func(c *cluster.Cluster) { c.SetPolicy(parsed) })
	if err := ruleworld.Writable(w.Have); err != nil {
		t.Error(err)
	}
	if scratch := w.Render.Ruleset(w.Cluster); scratch.String() != w.Have.String() {
		t.Errorf("from scratch it is another ruleset:\n%s\n%s", scratch, w.Have)
	}
	checkOthers(t, before, w.Have)
	if rules, most := countRules(w.Have)-countRules(before), 2*(100+size+10_000); rules > most {
		t.Errorf("%d bytes become %d rules, want at most %d", size, rules, most)
	}
	w.Change(func(c *cluster.Cluster) { c.DeletePolicy(parsed.Key) })
	if w.Have.String() != before.String() {
		t.Errorf("it left something:\n%s\n%s", before, w.Have)
	}
}

// checkOthers wants everything as before that isn't about the pods of dev, and each dispatch that
// leads to a chain still to lead there.
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

// FuzzPod adds any pod of another node. Its addresses get into the sets that select it, and nothing
// else changes; an address that isn't unicast counts for no pod; and without it all is as before.
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
		isOurs := slices.ContainsFunc(cases.Pods(), func(own *corev1.Pod) bool {
			return own.Namespace == namespace && own.Name == name
		})
		if isOurs {
			return // it takes the place of one of this node's
		}
		w := ruleworld.New(t)
		before := w.Have.Clone()
		w.Change(func(c *cluster.Cluster) { c.SetPod(p) })
		if err := ruleworld.Writable(w.Have); err != nil {
			t.Error(err)
		}
		for name, chain := range before.Chains {
			if !w.Have.Chains[name].Equal(chain) {
				t.Errorf("chain %s changed", name)
			}
		}
		for name, set := range before.Sets {
			isOfPods := strings.HasPrefix(name, "pods/") || strings.HasPrefix(name, "named-port/")
			if !isOfPods && !maps.Equal(set.Elements, w.Have.Sets[name].Elements) {
				t.Errorf("set %s changed", name)
			}
			for e := range w.Have.Sets[name].Elements {
				_, was := set.Elements[e]
				if !was &&
					!slices.ContainsFunc(p.Addresses,
						func(a netip.Addr) bool {
							return strings.HasPrefix(e.First, string(a.AsSlice()))
						}) {
					t.Errorf("set %s has %s, which isn't the pod's", name, e)
				}
			}
		}
		w.Change(func(c *cluster.Cluster) { c.DeletePod(namespace, name) })
		if w.Have.String() != before.String() {
			t.Errorf("it left something:\n%s\n%s", before, w.Have)
		}
	})
}
