package enforce

import (
	"strings"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/cases"
)

// TestMeaning runs the cases of the meaning table that an API server accepts,
// with the pods on one node and on two. Every flow connects before.
func TestMeaning(t *testing.T) {
	t.Parallel()
	for name, placement := range map[string]map[string]string{"same node": together, "across nodes": apart} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labName(t, "meaning"), lab.Options{Nodes: 2})
			w := newWorld(t, l, placement)
			for _, tc := range cases.All() {
				if tc.NoServer || name == "across nodes" && namesTheNode(tc) {
					continue
				}
				t.Run(tc.Line+"/"+tc.Name, func(t *testing.T) {
					w := *w
					w.t = t
					w.run(tc)
				})
			}
		})
	}
}

// namesTheNode: across nodes there is no one node that a manifest could name.
func namesTheNode(tc cases.Case) bool {
	for _, spec := range tc.Policies {
		if strings.Contains(spec, `"`+cases.NodeName+`"`) {
			return true
		}
	}
	return false
}

// run goes through one case; what it applied is deleted when it ends.
func (w *world) run(tc cases.Case) {
	w.t.Helper()
	allow, deny := cases.MustFlows(tc.Allow), cases.MustFlows(tc.Deny)
	w.expect(append(allow, deny...), true)
	var keys []string
	for key := range tc.Policies {
		keys = append(keys, key)
	}
	defer w.deletePolicies(keys...)
	w.setPolicies(adapt(tc.Policies))
	w.expect(deny, false)
	w.expect(allow, true)
}

// adapt replaces the documentation addresses of the cases' world by the lab's.
func adapt(specs map[string]string) map[string]string {
	out := map[string]string{}
	for key, spec := range specs {
		out[key] = labAddresses.Replace(spec)
	}
	return out
}

// labAddresses: the outside host's addresses in a lab begin at .250.
var labAddresses = strings.NewReplacer(
	"192.0.2.0/24", "192.168.0.0/24", "192.0.2.16/28", "192.168.0.251/32", "192.0.2.20/32", "192.168.0.251/32",
	"192.0.2.20/31", "192.168.0.251/32", "192.0.0.0/16", "192.168.0.0/16",
	"2001:db8:1::/64", "fd00:192:168::/64", "2001:db8:1::20/124", "fd00:192:168::251/128",
	"2001:db8:1::20/128", "fd00:192:168::251/128", "2000::/3", "fd00:192::/32",
)
