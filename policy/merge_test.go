package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// Peers on the same ports become one clause; those that may be many stay by themselves, once.
func TestMerged(t *testing.T) {
	t.Parallel()
	blocks := func(n int) string {
		var out strings.Builder
		for i := range n {
			fmt.Fprintf(&out, "{ipBlock: {cidr: 192.0.2.%d/32}}, ", i)
		}
		return out.String()
	}
	web, db := "{podSelector: {matchLabels: {app: web}}}", "{podSelector: {matchLabels: {app: db}}}"
	for name, c := range map[string]struct {
		rules []string // of a policy each
		want  []string
	}{
		"peers on one port": {
			[]string{"{from: [" + web + "], ports: [{port: 80}]}",
				"{from: [" + db + "], ports: [{port: 80}]}"},
			[]string{"dev/p0 rule 0, dev/p1 rule 0: ingress peers of namespace dev: all, " +
				"TCP 80 = namespace dev: app=db; namespace dev: app=web"},
		},
		"another port": {
			[]string{"{from: [" + web + "], ports: [{port: 80}]}", "{from: [" + web + "]}"},
			[]string{"dev/p0 rule 0: ingress peers of namespace dev: all, TCP 80 = " +
				"namespace dev: app=web",
				"dev/p1 rule 0: ingress peers of namespace dev: all = namespace dev: app=web"},
		},
		"more rules than can be named": {
			[]string{"{from: [" + web + "]}", "{from: [" + db + "]}, {from: [" + db + "]}"},
			[]string{"dev/p0 rule 0 and 2 more: ingress peers of namespace dev: all = " +
				"namespace dev: app=db; namespace dev: app=web"},
		},
		"blocks of both families": {
			[]string{"{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: '2001:db8::/32'}}]}",
				"{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.1/32]}}]}"},
			[]string{"dev/p0 rule 0, dev/p1 rule 0: ingress peers of namespace dev: all, IPv4 = " +
				"192.0.2.0/24; 192.0.2.0/24 except 192.0.2.1/32",
				"dev/p0 rule 0: ingress peers of namespace dev: all, IPv6 = 2001:db8::/32"},
		},
		"whole namespaces": {
			[]string{"{from: [{namespaceSelector: {}}]}", "{from: [{namespaceSelector: {}}, " + web + "]}",
				"{from: [{podSelector: {}}, {namespaceSelector: {}}]}"},
			[]string{"dev/p0 rule 0: namespaces all: all = namespaces all: all",
				"dev/p1 rule 0: namespace dev: app=web; namespaces all: all = " +
					"namespaces all: all; namespace dev: app=web",
				"dev/p2 rule 0: namespace dev: all; namespaces all: all = " +
					"namespace dev: all; namespaces all: all"},
		},
		"the same from several": {
			[]string{"{from: [{namespaceSelector: {}}]}", "{from: [{namespaceSelector: {}}]}", "{}", "{}"},
			[]string{"dev/p0 rule 0, dev/p1 rule 0: namespaces all: all = namespaces all: all",
				"dev/p2 rule 0, dev/p3 rule 0: anybody"},
		},
		"few blocks and many": {
			[]string{"{from: [" + blocks(64) + "]}", "{from: [" + blocks(65) + "]}"},
			[]string{"dev/p0 rule 0: ingress peers of namespace dev: all, IPv4 = 64 blocks",
				"dev/p1 rule 0: blocks = 65 blocks"},
		},
		"named ports": {
			[]string{"{from: [" + web + "], ports: [{port: http}]}",
				"{from: [" + db + "], ports: [{port: http}]}"},
			[]string{"dev/p0 rule 0, dev/p1 rule 0: ingress peers of namespace dev: all, " +
				"TCP http of namespace dev: all = namespace dev: app=db; namespace dev: app=web"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var policies []*policy.Policy
			for i, rules := range c.rules {
				np, err := cases.RenderPolicy(fmt.Sprintf("dev/p%d", i),
					"{podSelector: {}, ingress: ["+rules+"]}", cases.Addr)
				if err != nil {
					t.Fatal(err)
				}
				p := policy.Parse(np)
				policies = append(policies, &p)
			}
			var got []string
			for _, cl := range policy.Merged(policies, policy.Ingress) {
				got = append(got, clauseText(cl))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// clauseText is the rules that a clause is of, its set of peers, and who is in it.
func clauseText(cl policy.Clause) string {
	if cl.Peer == nil {
		return cl.Of + ": anybody"
	}
	var in []string
	for _, k := range cl.Peer.Keys {
		in = append(in, string(k))
	}
	for _, b := range cl.Peer.Blocks {
		in = append(in, b.String())
	}
	name := cl.Peer.ID.Peers
	if few := 10; len(in) > few {
		in = []string{fmt.Sprintf("%d blocks", len(in))}
		if !cl.Peer.Union {
			name = "blocks"
		}
	}
	return fmt.Sprintf("%s: %s = %s", cl.Of, name, strings.Join(in, "; "))
}
