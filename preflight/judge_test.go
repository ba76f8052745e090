package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/others"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/overlay"
)

var errAny = errors.New("any error")

// expect wants an outcome that says something, with a remedy unless it passed.
func expect(t *testing.T, what string, r Result, status Status, says ...string) {
	t.Helper()
	if r.Status != status || (r.Remedy == "") != (status == Pass) {
		t.Errorf("%s: got %q, want %s", what, r, status)
	}
	for _, text := range says {
		if !strings.Contains(r.Found+r.Remedy, text) {
			t.Errorf("%s: got %q, want it to say %q", what, r, text)
		}
	}
}

func TestJudgeKernel(t *testing.T) {
	t.Parallel()
	known := []kernels.Bug{{Name: "met", Fixed: []kernels.Version{{Major: 7}}, Open: true,
		Effect: "a packet can be lost"}}
	for release, want := range map[string]Status{
		"99.1": Pass, "5.14.0-427.el9.x86_64": Pass, "5.13.1": Warn,
		"5.12.19": Fail, "4.19.0-25-amd64": Fail, "testing": Warn, "": Warn,
	} {
		expect(t, release, judgeKernel(kernels.Identify(release, ""), known), want, release)
	}
	debian := func(release, number string) Result {
		return judgeKernel(
			kernels.Identify(release, "#1 SMP Debian "+number+"-1 (2026-01-01)"), known)
	}
	expect(t, "too old", debian("5.10.0-32-amd64", "5.10.223"), Fail, "5.10.223",
		"expected Linux 5.13 or newer")
	expect(t, "with a bug", debian("6.1.0-50-amd64", "6.1.176"), Warn, "may have the bug met",
		"docs/kernels.md")
}

func TestJudgeCapabilities(t *testing.T) {
	t.Parallel()
	for eff, want := range map[string]struct {
		status Status
		says   string
	}{
		"CapEff:\t000001ffffffffff": {Pass, "CAP_NET_ADMIN and CAP_NET_RAW"},
		"CapEff:\t0000000000003000": {Pass, ""},
		"CapEff:\t0000000000001000": {Fail, "without CAP_NET_RAW"},
		"CapEff:\t0000000000002000": {Fail, "without CAP_NET_ADMIN"},
		"CapEff:\t0000000000000000": {Fail, "without CAP_NET_ADMIN and CAP_NET_RAW"},
		"CapEff:\tall":              {Warn, ""},
		"CapPrm:\t0000000000003000": {Warn, ""},
	} {
		expect(t, eff, judgeCapabilities("Name:\tx\n"+eff+"\nCapBnd:\t0\n"), want.status, want.says)
	}
}

func TestJudgeNFTables(t *testing.T) {
	t.Parallel()
	late := fmt.Errorf("%w: overdue", nft.ErrUnknownOutcome)
	for name, c := range map[string]struct {
		lacks []kernels.Feature
		err   error
		want  Status
		says  string
	}{
		"all":         {nil, nil, Pass, "7 features"},
		"one":         {kernels.Features()[:1], nil, Fail, "CONFIG_NF_TABLES_INET"},
		"none":        {nil, fmt.Errorf("%w: x", table.ErrNoNFTables), Fail, "CONFIG_NF_TABLES"},
		"not allowed": {nil, errors.Join(late, unix.EPERM), Fail, "run this as root"},
		"late":        {nil, late, Warn, "once more"},
		"other":       {nil, errAny, Warn, "any error"},
	} {
		expect(t, name, judgeNFTables(7, c.lacks, c.err), c.want, c.says)
	}
}

func TestJudgeKinds(t *testing.T) {
	t.Parallel()
	kinds := []string{"veth", "ifb", "vxlan"}
	for _, c := range []struct {
		has  map[string]bool
		want Status
		says string
	}{
		{map[string]bool{"veth": true, "ifb": true, "vxlan": true}, Pass, "veth, ifb, vxlan"},
		{map[string]bool{"veth": true, "vxlan": true}, Warn, "egress-bandwidth"},
		{map[string]bool{"veth": true, "ifb": true}, Fail, "of kind vxlan"},
		{map[string]bool{"vxlan": true}, Fail, "of kind veth, ifb"},
	} {
		expect(t, fmt.Sprint(c.has), judgeKinds(kinds, c.has), c.want, c.says)
	}
}

func TestJudgeNetwork(t *testing.T) {
	t.Parallel()
	podCIDRs := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
	node := overlay.Node{Name: "n1", PodCIDRs: podCIDRs}
	asked := Options{Node: "n1", Nodes: []overlay.Node{node}}
	good := overlay.Foresight{}
	good.Local, good.Device = netip.MustParseAddr("192.0.2.1"), "eth0"
	overlaps, skips := good, good
	overlaps.Overlapping = []string{"10.244.0.1/24 on cni0"}
	skips.Skipped = []overlay.Skipped{{Node: "n2", Reason: "no address"}}
	for name, c := range map[string]struct {
		o    Options
		f    overlay.Foresight
		err  error
		want Status
		says string
	}{
		"guessed":         {Options{}, good, nil, Pass, "at 192.0.2.1 on eth0; podCIDRs"},
		"asked":           {asked, good, nil, Pass, "the podCIDRs [10.244.1.0/24]"},
		"can't, guessed":  {Options{}, overlay.Foresight{}, errAny, Fail, "--kubeconfig"},
		"can't, asked":    {asked, overlay.Foresight{}, errAny, Fail, "the Node object's podCIDRs"},
		"others' address": {asked, overlaps, nil, Warn, "10.244.0.1/24 on cni0"},
		"a node is left":  {asked, skips, nil, Warn, "n2: no address"},
	} {
		expect(t, name, judgeNetwork(c.o, c.f, c.err), c.want, c.says)
	}
}

func TestJudgeMTU(t *testing.T) {
	t.Parallel()
	f := overlay.Foresight{LinkMTU: 1500}
	f.Uplinks, f.MTU = []string{"eth0"}, 1450
	for mtu, want := range map[int]Status{0: Pass, 1400: Pass, 1500: Pass, 1501: Warn, 9000: Warn} {
		expect(t, fmt.Sprint(mtu), judgeMTU(overlay.Config{MTU: mtu}, f, nil), want, "eth0", "1450")
	}
	expect(t, "unknown", judgeMTU(overlay.Config{}, f, errAny), Warn)
}

func TestJudgeTunnel(t *testing.T) {
	t.Parallel()
	c := overlay.Config{Backend: overlay.VXLAN, VNI: 1, Port: 8472}
	expect(t, "free", judgeTunnel(c, overlay.Foresight{}, nil), Pass, "VNI 1 and UDP port 8472")
	expect(t, "ours", judgeTunnel(c, overlay.Foresight{HasTunnel: true}, nil), Pass, "sluice.1")
	other := overlay.Foresight{HasTunnel: true, InTheWay: "link flannel.1 has it"}
	expect(t, "another's", judgeTunnel(c, other, nil), Fail, "flannel.1", "ip link del")
	expect(t, "a socket", judgeTunnel(c, overlay.Foresight{}, unix.EADDRINUSE), Fail, "ss -ulpn")
	expect(t, "unknown", judgeTunnel(c, overlay.Foresight{}, errAny), Warn, "any error")
}

func TestJudgeOthers(t *testing.T) {
	t.Parallel()
	vxlan := Options{Config: overlay.Config{Backend: overlay.VXLAN, Port: 8472}}
	b := []others.Blocker{{Backend: others.NFTables, Family: "ip", Table: "filter",
		Chain: "FORWARD", Policy: "drop"}}
	for name, c := range map[string]struct {
		o              Options
		forward, input []others.Blocker
		err            error
		want           Status
		says           string
	}{
		"none":                     {vxlan, nil, nil, nil, Pass, ""},
		"forwarding":               {vxlan, b, nil, nil, Warn, "--forward-accept"},
		"input":                    {vxlan, nil, b, nil, Warn, "accept UDP port 8472"},
		"input without a tunnel":   {Options{PolicyOnly: true}, nil, b, nil, Pass, ""},
		"input with plain routes":  {Options{}, nil, b, nil, Pass, ""},
		"forwarding, policy alone": {Options{PolicyOnly: true}, b, b, nil, Warn, "chain FORWARD"},
		"unreadable":               {vxlan, nil, nil, errAny, Warn, "any error"},
	} {
		expect(t, name, judgeFirewall(c.o, c.forward, c.input, c.err), c.want, c.says)
	}
	l := others.Leftover{Of: "Calico", Where: "nftables table ip filter",
		Chains: []string{"cali-a"}}
	flannel := others.Leftover{Of: "flannel", Where: "nftables table ip nat"}
	both, policyOnly := []others.Leftover{l, flannel}, Options{PolicyOnly: true}
	expect(t, "no leftovers", judgeLeftovers(vxlan, nil, nil), Pass)
	expect(t, "leftovers", judgeLeftovers(vxlan, both, nil), Warn, "Calico", "cali-a", "flannel")
	expect(t, "flannel's", judgeLeftovers(vxlan, both[1:], nil), Warn, "flannel: nftables")
	expect(t, "flannel's beside it", judgeLeftovers(policyOnly, both[1:], nil), Pass)
	expect(t, "Calico's beside it", judgeLeftovers(policyOnly, both, nil), Warn, "cali-a")
	expect(t, "unreadable", judgeLeftovers(vxlan, both, errAny), Warn, "any error")
	bridge := []others.BridgeBypass{{Bridge: "cni0", Family: "ip"}}
	expect(t, "no bridges", judgeBridges(nil, nil), Pass)
	expect(t, "bridges", judgeBridges(bridge, nil), Warn, "cni0", "bridge-nf-call-iptables")
	expect(t, "unreadable", judgeBridges(nil, errAny), Warn, "any error")
}

func TestJudgeConfigurations(t *testing.T) {
	t.Parallel()
	none, one := []string(nil), []string{"a.conf"}
	for name, c := range map[string]struct {
		policyOnly    bool
		before, after []string
		err           error
		want          Status
	}{
		"none":                 {false, none, none, nil, Pass},
		"before":               {false, one, none, nil, Fail},
		"after":                {false, none, one, nil, Warn},
		"both":                 {false, one, one, nil, Fail},
		"unreadable":           {false, none, none, errAny, Fail},
		"policy alone, none":   {true, none, none, nil, Warn},
		"policy alone, before": {true, one, none, nil, Pass},
		"policy alone, after":  {true, none, one, nil, Pass},
	} {
		o := Options{PolicyOnly: c.policyOnly, ConfDir: "/conf"}
		f := files{before: c.before, after: c.after}
		expect(t, name, judgeConfigurations(o, f, c.err), c.want)
	}
}

func TestJudgeNodes(t *testing.T) {
	t.Parallel()
	has := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
	a, b := overlay.Node{Name: "a", PodCIDRs: has}, overlay.Node{Name: "b"}
	expect(t, "with", Asked("s", "a", []overlay.Node{a}), Pass)
	expect(t, "without", Asked("s", "b", []overlay.Node{a, b}), Fail, "this one", "b")
	expect(t, "another without", Asked("s", "a", []overlay.Node{a, b}), Warn, "other Nodes", "b")
	expect(t, "missing", Asked("s", "c", []overlay.Node{a, b}), Fail, "no Node c", "--node-name")
	expect(t, "no answer", Unasked("s", errAny), Fail, "any error")
}

func TestJudgeFolders(t *testing.T) {
	t.Parallel()
	missing := folder{path: "/missing"}
	expect(t, "missing", judgeFolders([]folder{missing}), Pass, "not there yet")
	expect(t, "unreachable", judgeFolders([]folder{missing, {path: "/x", err: fs.ErrPermission}}), Fail,
		"permission")
}

func TestWorst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		all  []Status
		want Status
	}{
		{nil, Pass}, {[]Status{Pass, Pass}, Pass}, {[]Status{Pass, Warn, Pass}, Warn},
		{[]Status{Fail, Warn}, Fail}, {[]Status{Warn, Fail, Pass}, Fail},
	} {
		var results []Result
		for _, s := range c.all {
			results = append(results, Result{Status: s})
		}
		if got := Worst(results); got != c.want {
			t.Errorf("%v: got %s, want %s", c.all, got, c.want)
		}
	}
}
