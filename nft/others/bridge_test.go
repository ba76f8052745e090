package others

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/test/testnet"
)

var bridgeCIDRs = []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16"),
	netip.MustParsePrefix("fd88::/64")}

func (w world) bypassing(cidrs []netip.Prefix, sysctlDir string) []string {
	w.t.Helper()
	var got []string
	err := w.node.Do(func() error {
		found, err := BridgesBypass(cidrs, sysctlDir)
		for _, b := range found {
			got = append(got, b.String())
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// What the check says is what packets do: behind a bridge, a drop on forward is met or it isn't.
func TestBridgesBypass(t *testing.T) {
	t.Parallel()
	const (
		off4 = "bridge cni0: net.bridge.bridge-nf-call-iptables is 0: IPv4 traffic between pods " +
			"of this node isn't seen; " +
			"run `sysctl -w net.bridge.bridge-nf-call-iptables=1`"
		off6 = "bridge cni0: net.bridge.bridge-nf-call-ip6tables is 0: IPv6 traffic between pods " +
			"of this node isn't seen; " +
			"run `sysctl -w net.bridge.bridge-nf-call-ip6tables=1`"
	)
	w := world{t: t, node: testnet.NewNode(t)}
	w.a = w.node.BridgedPod("a", netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd88::2"))
	w.b = w.node.BridgedPod("b", netip.MustParseAddr("10.88.0.3"), netip.MustParseAddr("fd88::3"))
	w.b.ServeTCP(servedPort)
	w.mustReach(familyIP, familyIP6)
	w.install(
		`table inet fw { chain f { type filter hook forward priority 0; meta l4proto tcp drop; } }`)

	for _, tt := range []struct {
		name         string
		call4, call6 string
		own4         string // the bridge's own switch
		seen, unseen []string
		want         []string
	}{
		{"both on", "1", "1", "0", []string{familyIP, familyIP6}, nil, nil},
		{"IPv4 off", "0", "1", "0", []string{familyIP6}, []string{familyIP}, []string{off4}},
		{"both off", "0", "0", "0", nil, []string{familyIP, familyIP6}, []string{off4, off6}},
		{"the bridge's own on", "0", "0", "1", []string{familyIP}, []string{familyIP6},
			[]string{off6}},
	} {
		w.setSysctl("bridge/bridge-nf-call-iptables", tt.call4)
		w.setSysctl("bridge/bridge-nf-call-ip6tables", tt.call6)
		w.run("ip", "link", "set", "cni0", "type", "bridge", "nf_call_iptables", tt.own4)
		w.mustReach(tt.unseen...)
		w.mustNotReach(tt.seen...)
		if diff := cmp.Diff(tt.want, w.bypassing(bridgeCIDRs, "")); diff != "" {
			t.Errorf("%s, -want +got:\n%s", tt.name, diff)
		}
	}
}

func TestBridgesBypassWithoutTheModule(t *testing.T) {
	t.Parallel()
	w := world{t: t, node: testnet.NewNode(t)}
	w.run("ip", "link", "add", "cni0", "up", "type", "bridge")
	w.run("ip", "address", "add", "10.88.0.1/16", "dev", "cni0")
	got := strings.Join(w.bypassing(bridgeCIDRs, t.TempDir()), "\n")
	if want := "bridge cni0: the kernel module br_netfilter isn't loaded: IPv4 traffic between " +
		"pods of this node isn't seen; " +
		"run `modprobe br_netfilter` and `sysctl -w net.bridge.bridge-nf-call-iptables=1`"; got !=
		want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestBridgesThatCarryPods(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bridge"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{familyIP, familyIP6} {
		if err := os.WriteFile(filepath.Join(dir, "bridge", bridgeSwitch(family)), []byte("0\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name    string
		command string
		want    string
	}{
		{"an address", "address add 10.88.3.1/24 dev br0", "ip"},
		{"an IPv6 address", "address add fd88::1/64 dev br0 nodad", "ip6"},
		{"a route", "route add 10.88.4.0/24 dev br0", "ip"},
		{"the route to all of them", "route add 10.88.0.0/16 dev br0", "ip"},
		{"an uplink", "route add default dev br0", ""},
		{"an uplink's network", "address add 10.0.0.1/8 dev br0", ""},
		{"a wider network", "route add 10.88.0.0/13 dev br0", ""},
		{"nothing", "link set br0 up", ""},
		{"another link", "address add 10.88.3.1/24 dev lo", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := world{t: t, node: testnet.NewNode(t)}
			w.run("ip", "link", "add", "br0", "up", "type", "bridge")
			w.run("ip", strings.Fields(tt.command)...)
			err := w.node.Do(func() error {
				found, err := BridgesBypass(bridgeCIDRs, dir)
				var families []string
				for _, b := range found {
					families = append(families, b.Family)
				}
				if got := strings.Join(families, " "); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
