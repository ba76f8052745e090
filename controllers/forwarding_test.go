package controllers

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/test/testnet"
)

// What the trial found is found anew when a sysctl changes on which it depends, and not without a
// cause.
func TestForwardingCheckFollowsSysctls(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	recorder := events.NewFakeRecorder(10)
	check := &ForwardingCheck{Taken: func() []netip.Addr {
		return nil
	}, Events: notify.NodeEvents{Node: "n", Recorder: recorder}}
	pods := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"),
		netip.MustParsePrefix("fd00:10:244:1::/64")}
	check.SetPods(pods, pods)
	look := func(sysctl, value string) (reported []string) {
		t.Helper()
		err := node.Do(func() error {
			if sysctl != "" {
				if err := os.WriteFile("/proc/sys/net/"+sysctl, []byte(value), 0o600); err != nil {
					return err
				}
			}
			check.look(t.Context())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for len(recorder.Events) > 0 {
			reported = append(reported, <-recorder.Events)
		}
		return reported
	}
	const off4 = "Warning ForwardingBlocked This node doesn't forward IPv4: " +
		"net.ipv4.ip_forward isn't 1."
	const off6 = "Warning ForwardingBlocked This node doesn't forward IPv6: " +
		"net.ipv6.conf.all.forwarding isn't 1."
	for _, step := range []struct {
		sysctl, value string
		want          []string
		over          bool // nothing is wrong afterwards
	}{
		{"ipv4/ip_forward", "0", []string{off4}, false},
		{"", "", nil, false},
		{"ipv4/ip_forward", "1", nil, true},
		{"ipv6/conf/all/forwarding", "0", []string{off6}, false},
		{"ipv6/conf/all/forwarding", "1", nil, true},
	} {
		if got := look(step.sysctl, step.value); !slices.Equal(got, step.want) {
			t.Errorf("%s=%s: reported %q, want %q", step.sysctl, step.value, got, step.want)
		}
		if _, is := check.reported["ForwardingBlocked"]; is == step.over {
			t.Errorf("%s=%s: something is wrong: %t", step.sysctl, step.value, is)
		}
	}
}

func TestTrialPath(t *testing.T) {
	t.Parallel()
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	for _, c := range []struct {
		cidr  string
		taken []netip.Addr
		want  string // source and destination; empty: none
	}{
		{"10.244.1.0/24", nil, "10.244.1.254 10.244.1.255"},
		{"10.244.1.7/24", addrs("10.244.1.254"), "10.244.1.253 10.244.1.255"},
		{"fd00::/64", addrs("fd00::ffff:ffff:ffff:ffff"),
			"fd00::ffff:ffff:ffff:fffd fd00::ffff:ffff:ffff:fffe"},
		{"10.244.1.4/30", addrs("10.244.1.5"), "10.244.1.6 10.244.1.7"},
		{"10.244.1.4/30", addrs("10.244.1.5", "10.244.1.6"), ""},
		{"10.244.1.4/31", nil, ""}, // the first one is the node's
		{"255.255.255.248/29", nil, "255.255.255.254 255.255.255.255"},
	} {
		path, err := trialPath(netip.MustParsePrefix(c.cidr), c.taken)
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%s without %s: %v, want an error", c.cidr, c.taken, path)
		case c.want != "" &&
			(err != nil || path.Source.String()+" "+path.Destination.String() != c.want):
			t.Errorf("%s without %s: %v, error %v, want %s", c.cidr, c.taken, path, err, c.want)
		}
	}
}
