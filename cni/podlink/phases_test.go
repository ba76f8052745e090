package podlink

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/test/cnitest"
)

// How far a link has come, and what is said about it, as time passes.
func TestPhases(t *testing.T) {
	t.Parallel()
	a := cnitest.NewAttachment("c1", "pod-a", "10.1.0.2")
	own, strange, others := link.MAC(a.HostMAC()), link.MAC{2, 1}, link.MAC{2, 2}
	macs := map[link.MAC]string{own: a.ID(), others: "c2/eth0"}
	found := func(index int, mac link.MAC) *link.Found {
		return &link.Found{Index: index, MAC: mac}
	}
	type step struct {
		after time.Duration
		found *link.Found
		want  phase
		says  string
	}
	for name, steps := range map[string][]step{
		"made, wired, looked after": {
			{0, nil, absent, ""}, {50 * time.Second, nil, absent, ""},
			{0, found(1, own), fresh, ""},
			{900 * time.Millisecond, found(1, own), fresh, ""},
			{100 * time.Millisecond, found(1, own), settled, ""},
		},
		"never made": {{0, nil, absent, ""}, {59 * time.Second, nil, absent, ""},
			{time.Second, nil, absent, "is gone"}},
		"deleted": {
			{0, found(1, own), fresh, ""}, {time.Minute, found(1, own), settled, ""},
			{0, nil, absent, ""},
			{4 * time.Second, nil, absent, ""}, {time.Second, nil, absent, "is gone"},
		},
		"made again": {
			{0, found(1, own), fresh, ""}, {time.Minute, found(1, own), settled, ""},
			{0, nil, absent, ""},
			{6 * time.Second, found(2, own), fresh, ""}, {time.Second, found(2, own), settled, ""},
		},
		"MAC altered": {{0, found(1, own), fresh, ""},
			{2 * time.Second, found(1, strange), settled, ""}},
		"another's MAC": {{0, found(1, own), fresh, ""},
			{2 * time.Second, found(1, others), foreign, ""},
			{time.Minute, found(1, others), foreign, "left alone"}},
		"another's link": {{0, found(1, others), foreign, ""},
			{61 * time.Second, found(1, others), foreign, "left alone"}},
		"an unknown link": {{0, found(1, strange), foreign, ""},
			{61 * time.Second, found(1, strange), foreign, "left alone"}},
		"an old one is left": {{0, found(1, strange), foreign, ""},
			{time.Second, found(2, own), fresh, ""}, {time.Second, found(2, own), settled, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tr tracker
			now := time.Now()
			for i, s := range steps {
				now = now.Add(s.after)
				if got := tr.observe(a, s.found, macs, now, time.Second); got != s.want {
					t.Fatalf("step %d: phase %d, want %d", i, got, s.want)
				}
				if says := tr.problem(a, s.want, now); (says == "") != (s.says == "") ||
					!strings.Contains(says, s.says) {
					t.Errorf("step %d: says %q, want %q", i, says, s.says)
				}
			}
		})
	}
}

// What an agent doesn't know yet, as the API server is away, stays as the last agent left it: the
// unreachable routes, and pods' routes with the node's address.
func TestUnknownIsLeftAlone(t *testing.T) {
	t.Parallel()
	a := cnitest.NewAttachment("c1", "pod-a", "10.1.0.2", "fd00:1::2")
	links := map[string]link.Found{a.Interface: {}}
	known := hostInputs{attachments: []cni.Attachment{a},
		nodeAddrs: []netip.Addr{cnitest.Node4, cnitest.Node6}, podCIDRs: podCIDRs}
	desired := func(in hostInputs) link.State {
		return desiredHost(in, map[string]phase{a.ID(): settled}, links, func(netip.Addr) bool {
			return true
		})
	}
	actual := desired(known)
	for name, in := range map[string]hostInputs{
		"nothing is known":           {attachments: known.attachments},
		"only the addresses":         {attachments: known.attachments, nodeAddrs: known.nodeAddrs},
		"only the podCIDRs":          {attachments: known.attachments, podCIDRs: known.podCIDRs},
		"all, and nothing is to say": known,
	} {
		want := in.keepUnknown(desired(in), actual)
		if ops := link.Diff(want, actual, nil); len(ops) != 0 {
			t.Errorf("%s: changes %v", name, ops)
		}
	}
	alone := hostInputs{podCIDRs: known.podCIDRs}
	gone := alone.keepUnknown(desired(alone), actual)
	if n := len(gone); n != len(podCIDRs) {
		t.Errorf("of a pod that is gone, the routes stay: %d routes", n)
	}
}
