package enforce

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/cases"
)

// TestMeaning runs the cases of the meaning table that an API server accepts, with the pods on two
// nodes. Every flow connects before.
//
// With all pods on one node the same cases are in TestPackets of controllers.
func TestMeaning(t *testing.T) { //nolint:tparallel // the cases take turns on one lab
	t.Parallel()
	l := newLab(t, labName(t, "meaning"), lab.Options{Nodes: 2})
	w := newWorld(t, l, apart)
	for _, tc := range cases.All() {
		if tc.NoServer {
			continue
		}
		t.Run(tc.Line+"/"+tc.Name, func(t *testing.T) {
			w := *w
			w.t = t
			w.run(tc)
		})
	}
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

// podSelectedBy is a pod that a policy selects. All that it selects have to be on one node, for
// what the policy says of their node.
func (w *world) podSelectedBy(key, spec string) string {
	w.t.Helper()
	np, err := cases.RenderPolicy(key, spec, cases.Addr)
	w.must(err)
	selector, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
	w.must(err)
	var pods, nodes []string
	for _, pod := range cases.Pods() {
		name := pod.Namespace + "/" + pod.Name
		if pod.Namespace == np.Namespace && selector.Matches(labels.Set(pod.Labels)) {
			pods, nodes = append(pods, name), append(nodes, w.node[name])
		}
	}
	if nodes = slices.Compact(nodes); len(nodes) != 1 {
		w.t.Fatalf(
			"%s names the node of the pods it selects, %q: expected one node, they are on %q", key,
			pods, nodes)
	}
	return pods[0]
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
	"192.0.2.0/24", "192.168.0.0/24", "192.0.2.16/28", "192.168.0.251/32", "192.0.2.20/32",
	"192.168.0.251/32",
	"192.0.2.20/31", "192.168.0.251/32", "192.0.0.0/16", "192.168.0.0/16",
	"2001:db8:1::/64", "fd00:192:168::/64", "2001:db8:1::20/124", "fd00:192:168::251/128",
	"2001:db8:1::20/128", "fd00:192:168::251/128", "2000::/3", "fd00:192::/32",
)
