package controllers

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
)

func TestDirectAddresses(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	nodes := []overlay.Node{
		{Name: "own", Addresses: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}},
		{Name: "near", Addresses: []netip.Addr{addr("192.0.2.2"), addr("2001:db8::2")},
			UnderlayIP: addr("198.51.100.2")},
		{Name: "far", Addresses: []netip.Addr{addr("203.0.113.3")}},
	}
	peers := []overlay.Peer{
		{Name: "near", Direct: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}},
		{Name: "far", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")}},
	}
	for mode, want := range map[ToNodes]string{
		MasqueradeAlways: "",
		MasqueradeAuto:   "192.0.2.2 198.51.100.2",
		MasqueradeNever:  "192.0.2.1 192.0.2.2 198.51.100.2 203.0.113.3 2001:db8::1 2001:db8::2",
	} {
		var got []string
		for _, a := range directAddresses(mode, peers, nodes) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", mode, got, want)
		}
	}
}

func TestOverlayNode(t *testing.T) {
	t.Parallel()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n",
			Annotations: map[string]string{policy.UnderlayAnnotation: "192.0.2.9"}},
		Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "what"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "n"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeInternalIP, Address: "none"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::1"},
		}},
	}
	got, err := OverlayNode(node)
	if err != nil || got.UnderlayIP != netip.MustParseAddr("192.0.2.9") || len(got.PodCIDRs) != 1 ||
		!slices.Equal(got.Addresses,
			[]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}) {
		t.Errorf("%+v, error %v", got, err)
	}
	for _, text := range []string{"eth1", "", "fe80::1%eth0", strings.Repeat("9", 1000)} {
		node.Annotations[policy.UnderlayAnnotation] = text
		got, err := OverlayNode(node)
		if err == nil ||
			!strings.HasPrefix(err.Error(), "annotation sluice.network/underlay-ip: ") ||
			len(err.Error()) > 200 || got.UnderlayIP.IsValid() {
			t.Errorf("%.20q: %+v, error %v", text, got.UnderlayIP, err)
		}
	}
	// What the cache strips must leave that.
	stripped, err := strip(node)
	if err != nil {
		t.Fatal(err)
	}
	if _, has := stripped.(*corev1.Node).Annotations[policy.UnderlayAnnotation]; !has {
		t.Error("the annotation is stripped")
	}
}

// TestRulesWhileTheNodeCannotTakePart: the tunnel's port isn't open to all when an agent starts on
// a node that has a tunnel, but doesn't know which are its ends.
func TestRulesWhileTheNodeCannotTakePart(t *testing.T) {
	t.Parallel()
	n := NewPodNetwork(NetworkOptions{Node: "own"})
	config, err := overlay.ParseConfig([]byte(`{"Network": "10.244.0.0/16"}`))
	if err != nil {
		t.Fatal(err)
	}
	rules := n.rules(NetworkState{Config: config,
		Status: overlay.Status{Reason: "no address"}}, nil)
	if rules.Tunnel != "sluice.1" || rules.Port != 8472 || rules.Local.IsValid() {
		t.Errorf("tunnel %q, port %d, local %s", rules.Tunnel, rules.Port, rules.Local)
	}
	listing := ruleset.NewRenderer(ruleset.Config{Network: rules}).
		Ruleset(cluster.New(cluster.Options{})).String()
	if !strings.Contains(listing, "udp dport 8472 jump tunnel/input") ||
		strings.Contains(listing, "notrack") {
		t.Errorf("rules\n%s", listing)
	}
}

// A link that doesn't forward is reported when that begins, once, by the name that sysctl takes.
func TestLinksThatDontForwardAreReported(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	n := NewPodNetwork(NetworkOptions{Node: "n",
		Events: notify.NodeEvents{Node: "n", Recorder: recorder}, Log: logr.Discard()})
	var reported []string
	for _, off := range [][]string{nil, {"eth0.5"}, {"eth0.5"}, {"eth0.5", "eth1"}, nil, {"eth1"}} {
		n.noteState(NetworkState{Status: overlay.Status{NotForwarding: off}})
		for len(recorder.Events) > 0 {
			sysctl, _, _ := strings.Cut(<-recorder.Events, " is 0: ")
			reported = append(reported, sysctl)
		}
		reported = append(reported, "")
	}
	const warning = "Warning LinkNotForwarding net.ipv4.conf."
	want := []string{"", warning + "eth0/5.forwarding", "", "", warning + "eth1.forwarding", "", "",
		warning + "eth1.forwarding", ""}
	if diff := cmp.Diff(want, reported); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestUnreadableAnnotationIsReported: also of a node that is known already, and once for each
// value.
func TestUnreadableAnnotationIsReported(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(10)
	n := NewPodNetwork(NetworkOptions{Node: "n",
		Events: notify.NodeEvents{Node: "n", Recorder: recorder}, Log: logr.Discard()})
	for i, step := range []struct {
		annotation string
		reported   int
	}{{"", 0}, {"nowhere", 1}, {"nowhere", 0}, {"192.0.2.1", 0}, {"nowhere", 1}, {"elsewhere", 1}} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		if step.annotation != "" {
			node.Annotations = map[string]string{policy.UnderlayAnnotation: step.annotation}
		}
		n.SetNode(node)
		if got := len(recorder.Events); got != step.reported {
			t.Errorf("step %d: %d Events, want %d", i, got, step.reported)
		}
		for len(recorder.Events) > 0 {
			if got := <-recorder.Events; !strings.Contains(got, step.annotation) {
				t.Errorf("step %d: %s", i, got)
			}
		}
	}
}
