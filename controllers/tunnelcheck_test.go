package controllers

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/nft/others"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/overlay/reach"
)

// tunnelWorld is a TunnelCheck of node "own" with a clock of its own.
type tunnelWorld struct {
	*TunnelCheck
	t        *testing.T
	recorder *events.FakeRecorder
	clock    time.Time
	logged   int
}

func newTunnelWorld(t *testing.T) *tunnelWorld {
	t.Helper()
	w := &tunnelWorld{t: t, recorder: events.NewFakeRecorder(100), clock: atSecond(0)}
	log := funcr.New(func(string, string) { w.logged++ }, funcr.Options{})
	w.TunnelCheck = NewTunnelCheck("own", 0, notify.NodeEvents{Node: "own", Recorder: w.recorder},
		nil, log)
	w.interval = reach.DefaultInterval
	w.now = func() time.Time { return w.clock }
	w.blockers = func(h others.Hook) ([]others.Blocker, error) {
		return []others.Blocker{
			{Backend: others.NFTables, Family: "inet", Table: "fw", Chain: h.String(),
				Policy: "drop"},
			{Backend: others.NFTables, Family: "ip6", Table: "other", Chain: "c", Policy: "drop"},
		}, nil
	}
	w.SetState(NetworkState{
		Config: overlay.Config{Backend: overlay.VXLAN, Port: 8472},
		Status: overlay.Status{Ready: true, Device: "eth0",
			Local: netip.MustParseAddr("192.168.0.1")},
	})
	return w
}

// see reports peers a, b, ... at a second, and returns the Events.
func (w *tunnelWorld) see(second int, r reach.Report) (reported []string) {
	w.t.Helper()
	w.clock = atSecond(second)
	w.look(r)
	for len(w.recorder.Events) > 0 {
		reported = append(reported, <-w.recorder.Events)
	}
	return reported
}

// TestTunnelIsReported: a trouble of the tunnel is reported after a minute, once, as it is then,
// and when it is over.
func TestTunnelIsReported(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t)
	w.setNode("a", true)
	w.setNode("b", true)
	const yes, no = reach.Answering, reach.Silent
	const closed = "Warning TunnelBlocked None of 2 nodes has answered through the tunnel for " +
		"1m0s (a, b), and nothing has come in by it. What drops here " +
		"unless a rule of it accepts: nftables table inet fw, chain input (policy drop). Accept " +
		"UDP port 8472 on eth0 there."
	const opened = "Warning TunnelBlocked 1 of 2 nodes don't answer through the tunnel (b): see " +
		"whether they accept UDP port 8472."
	answered := func(second int, peers []reach.PeerState) reach.Report {
		return reach.Report{Peers: peers, Answer: atSecond(second), Heard: atSecond(second)}
	}
	for _, step := range []struct {
		second int
		report reach.Report
		want   []string
	}{
		{90, answered(90, peersAre(0, yes, yes)), nil},
		{140, answered(90, peersAre(100, no, no)), nil},
		{159, answered(90, peersAre(100, no, no)), nil},
		{160, answered(90, peersAre(100, no, no)), []string{closed}},
		{161, answered(90, peersAre(100, no, no)), nil},
		{1900, answered(90, peersAre(100, yes, no)), nil}, // an answer that isn't one of late
		{2000, answered(90, peersAre(100, no, no)), nil},
		{2001, answered(2001, peersAre(100, yes, no)), []string{opened}},
		{2002, answered(2002, peersAre(100, no, no)), nil}, // not for long
		{2010, answered(2010, peersAre(100, yes, yes)),
			[]string{
				"Normal TunnelPasses no node that is ready is silent through the tunnel; 2 " +
					"answer"}},
		{2011, answered(2011, peersAre(100, yes, yes)), nil},
		{2060, answered(2060, peersAre(2050, yes, no)), nil},
		{2110, answered(2110, peersAre(2050, yes, no)), []string{opened}},
	} {
		if got := w.see(step.second, step.report); !slices.Equal(got, step.want) {
			t.Errorf("second %d: reported\n%q, want\n%q", step.second, got, step.want)
		}
	}
	// Kubernetes reports a node that goes, and its end.
	w.setNode("b", false)
	if got := w.see(2120, answered(2120, peersAre(2050, yes, no))); len(got) != 1 ||
		got[0] !=
			"Normal TunnelPasses no node that is ready is silent through the tunnel; 1 answer" {
		t.Errorf("reported %q of a node that isn't ready any more", got)
	}
	w.setNode("b", true)
	if got := w.see(2179, answered(2179, peersAre(2050, yes, no))); len(got) > 0 {
		t.Errorf("reported %q of a node that has only just become ready", got)
	}
}

// TestTunnelIsQuiet: nodes that fall silent one by one are reported every ten minutes, and nothing
// is logged while nothing changes.
func TestTunnelIsQuiet(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t)
	states := []reach.State{}
	for range 20 {
		states = append(states, reach.Answering)
	}
	for _, p := range peersAre(0, states...) {
		w.setNode(p.Name, true)
	}
	reported := 0
	const seconds = 3600
	for second := range seconds {
		if second%120 == 0 && second/120 < 15 {
			states[second/120] = reach.Silent
		}
		reported += len(w.see(second, reach.Report{Peers: peersAre(-100, states...),
			Answer: atSecond(second), Heard: atSecond(second)}))
	}
	if reported < 1 || reported > 5 || w.logged > 6 {
		t.Errorf("%d Events and %d lines in an hour in which 15 nodes fell silent", reported,
			w.logged)
	}
}

// TestTunnelErrorLasts: an error that keeps the node from asking is logged once it has lasted.
func TestTunnelErrorLasts(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t)
	broken := reach.Report{Err: errors.New("no device")}
	for _, step := range []struct {
		second int
		report reach.Report
		logged int
	}{
		{0, broken, 0},
		{59, broken, 0},
		{60, reach.Report{}, 0},
		{70, broken, 0},
		{130, broken, 1},
		{900, broken, 1},
	} {
		reported := w.see(step.second, step.report)
		if w.logged != step.logged || len(reported) > 0 {
			t.Errorf("second %d: %d lines, want %d; reported %q", step.second, w.logged,
				step.logged, reported)
		}
	}
}

func TestNodeReady(t *testing.T) {
	t.Parallel()
	node := &corev1.Node{}
	for _, c := range []struct {
		conditions []corev1.NodeCondition
		want       bool
	}{
		{nil, false},
		{[]corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}, true},
		{[]corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}, false},
		{[]corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue}},
			false},
		{[]corev1.NodeCondition{{Type: corev1.NodeMemoryPressure},
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}, true},
	} {
		node.Status.Conditions = c.conditions
		stripped, err := strip(node)
		if err != nil {
			t.Fatal(err)
		}
		kept, isNode := stripped.(*corev1.Node)
		if !isNode || nodeReady(node) != c.want || nodeReady(kept) != c.want ||
			len(kept.Status.Conditions) > 1 {
			t.Errorf("%v: ready %t, from the cache %+v", c.conditions, nodeReady(node), kept)
		}
	}
}

// TestNoTunnelCheck: where no node is to be asked, there is nothing to report.
func TestNoTunnelCheck(t *testing.T) {
	t.Parallel()
	var none *TunnelCheck
	none.setNode("a", true)
	none.SetState(NetworkState{Status: overlay.Status{Ready: true}})
	if err := none.Run(t.Context()); err != nil {
		t.Error(err)
	}
}
