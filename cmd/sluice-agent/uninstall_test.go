package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/install"
	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/nft/others"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/needroot"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// installed is a node, a network namespace and a few folders, with all that Sluice ever puts on
// one, beside what others have there.
type installed struct {
	t     *testing.T
	netns ns.NetNS
	base  string
	pods  []ns.NetNS
	u     *uninstaller
	stop  func() // the agent's server
}

// newInstalled makes the node; before is a dump of what others have there.
func newInstalled(t *testing.T) (n *installed, before []string) {
	t.Helper()
	needroot.Skip(t)
	base := t.TempDir()
	n = &installed{t: t, base: base, netns: newNetNS(t), u: &uninstaller{
		stateDir: base + "/run/sluice", socket: base + "/run/sluice/cni.sock",
		cniConfDir: base + "/etc", binDir: base + "/bin",
		runDir: base + "/run", subnetFile: base + "/run/flannel/subnet.env",
	}}
	for _, dir := range []string{"etc", "bin", "run/NetworkManager/conf.d", "run/systemd/network"} {
		n.must(os.MkdirAll(filepath.Join(base, dir), 0o755))
	}
	for _, file := range []string{"etc/10-other.conflist", "bin/loopback",
		"run/NetworkManager/conf.d/other.conf"} {
		n.must(os.WriteFile(filepath.Join(base, file), []byte("{}"), 0o600))
	}
	n.do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv6/conf/all/accept_dad", []byte("0"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	})
	n.shell(`
		ip link set lo up
		ip link add eth0 up type veth peer name switch
		ip link set switch up
		ip link add slupstranger up type veth peer name stranger
		ip addr add 192.0.2.1/24 dev eth0
		ip addr add 2001:db8::1/64 dev eth0 nodad
		ip route add 203.0.113.0/24 via 192.0.2.9 proto static
		ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0
		nft add table inet other
		nft add table ip filter
		nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'`)
	before = n.dump()
	n.installFiles()
	n.runOverlay()
	n.runServer()
	n.addPods()
	n.installRules()
	return n, before
}

func newNetNS(t *testing.T) ns.NetNS {
	t.Helper()
	netns, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	return netns
}

func (n *installed) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// do runs f on a thread in the node's network namespace, and so programs that f starts.
func (n *installed) do(f func() error) {
	n.t.Helper()
	n.must(n.netns.Do(func(ns.NetNS) error { return f() }))
}

func (n *installed) shell(commands string) string {
	n.t.Helper()
	var out []byte
	n.do(func() (err error) {
		out, err = exec.CommandContext(n.t.Context(), "sh", "-ec", commands).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	return string(out)
}

// dump is everything on the node: tables, links, addresses, routes, neighbours, files. Without
// indices, and what changes by itself.
func (n *installed) dump() (lines []string) {
	n.t.Helper()
	out := n.shell(`
		nft -s list ruleset | sed 's/^/nft /'
		ip -br link | awk '{ print "link", $1 }'
		ip -br addr | awk '{ $2 = ""; print "addr", $0 }'
		ip -o route show table all | sed 's/^/route /'
		ip -o -6 route show table all | sed 's/^/route /'
		ip neigh show nud permanent | sed 's/^/neighbour /'
		bridge fdb show | sed 's/^/fdb /'
		tc qdisc show | awk '{ print "qdisc", $2, $5 }'`)
	for line := range strings.SplitSeq(out, "\n") {
		lines = append(lines, strings.TrimSpace(line))
	}
	n.must(filepath.WalkDir(n.base, func(path string, _ fs.DirEntry, err error) error {
		lines = append(lines, "file "+strings.TrimPrefix(path, n.base))
		return err
	}))
	slices.Sort(lines)
	return lines
}

func (n *installed) installFiles() {
	n.t.Helper()
	n.buildPlugin()
	_, err := install.Conflist(n.u.cniConfDir,
		install.ConflistOptions{Socket: n.u.socket, StateDir: n.u.stateDir})
	n.must(err)
	_, err = install.DropIns(n.u.runDir)
	n.must(err)
	n.must(overlay.SubnetEnv{MTU: 1450}.WriteFile(n.u.subnetFile))
	for _, leftover := range []string{
		"etc/.sluice-1.new", "bin/.sluice-1.new", "run/flannel/.subnet.env.1",
		"run/systemd/network/.sluice-1.new", "run/sluice/.new-1",
		"run/sluice/" + savedNetConf,
	} {
		path := filepath.Join(n.base, leftover)
		n.must(os.MkdirAll(filepath.Dir(path), 0o755))
		n.must(os.WriteFile(path, nil, 0o600))
	}
}

func (n *installed) buildPlugin() {
	n.t.Helper()
	dir := n.t.TempDir()
	if out, err := exec.CommandContext(n.t.Context(), "go", "build", "-o", dir+"/", "../sluice").
		CombinedOutput(); err != nil {
		n.t.Fatalf("building the plugin: %v: %s", err, out)
	}
	_, err := install.Plugin(filepath.Join(dir, install.PluginName), n.u.binDir)
	n.must(err)
}

// runOverlay makes the tunnel, as an agent that then ended.
func (n *installed) runOverlay() {
	n.t.Helper()
	prefix := netip.MustParsePrefix
	var nodes []overlay.Node
	for i := 1; i <= 3; i++ {
		nodes = append(nodes, overlay.Node{
			Name: fmt.Sprintf("n%d", i),
			PodCIDRs: []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", i)),
				prefix(fmt.Sprintf("fd00:10:244:%d::/64", i))},
			Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i))},
		})
	}
	ready := make(chan struct{}, 1)
	r := overlay.New(overlay.Options{NetNS: n.netns, OnStatus: func(s overlay.Status) {
		if s.Ready {
			ready <- struct{}{}
		}
	}})
	r.Set("n1", nodes, overlay.Config{Network: prefix("10.244.0.0/16"),
		IPv6Network: prefix("fd00:10:244::/48"), Backend: overlay.VXLAN, VNI: 1, Port: 8472})
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	select {
	case <-ready:
	case <-ctx.Done():
		n.t.Fatalf("the overlay isn't ready: %+v", r.Status())
	}
	cancel()
	n.must(<-ended)
}

// open lets every pod in.
type open struct{}

func (open) Attach(context.Context, cni.Attachment) error { return nil }
func (open) Detach(context.Context, string) error         { return nil }
func (open) Enforced(string) error                        { return nil }

func (n *installed) runServer() {
	n.t.Helper()
	s, err := server.New(server.Options{Socket: n.u.socket, StateDir: n.u.stateDir,
		Enforcer: open{}, Log: logr.Discard(), NetNS: n.netns})
	n.must(err)
	s.SetDatapathReady(true, "")
	s.SetPodCIDRs([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"),
		netip.MustParsePrefix("fd00:10:244:1::/64")})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }()
	go func() { ended <- s.KeepHostEnds(ctx) }()
	n.stop = func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			n.t.Errorf("the server: %v", err)
		}
		n.stop = func() {}
	}
	n.t.Cleanup(func() { n.stop() })
	n.await("the agent", func() bool {
		return cni.NewClient(n.u.socket).
			Call(ctx, cni.PathStatus, cni.StatusRequest{}, new(cni.StatusAnswer)) == nil
	})
}

func (n *installed) await(what string, done func() bool) {
	n.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			n.t.Fatalf("timeout waiting for %s", what)
		}
	}
}

// addPods wires two pods by the plugin that was installed, as a runtime does. Both are held to a
// bandwidth.
func (n *installed) addPods() {
	n.t.Helper()
	list, err := libcni.ConfListFromFile(filepath.Join(n.u.cniConfDir, "05-sluice.conflist"))
	n.must(err)
	runtime := libcni.NewCNIConfigWithCacheDir([]string{n.u.binDir}, n.t.TempDir(), nil)
	for _, name := range []string{"a", "b"} {
		pod := newNetNS(n.t)
		n.pods = append(n.pods, pod)
		n.do(func() error {
			_, err := runtime.AddNetworkList(n.t.Context(), list, &libcni.RuntimeConf{
				ContainerID: name, IfName: "eth0",
				NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), pod.Fd()),
				Args: [][2]string{
					{"K8S_POD_NAMESPACE", "dev"}, {"K8S_POD_NAME", "pod-" + name},
					{"K8S_POD_UID", name}, {"K8S_POD_INFRA_CONTAINER_ID", name},
				},
				CapabilityArgs: map[string]any{"bandwidth": json.RawMessage(
					`{"ingressRate": 1000000, "ingressBurst": 1000000, "egressRate": 1000000, "egressBurst": 1000000}`)},
			})
			return err
		})
	}
	n.await("the pods' shaping and the routes of the node", func() bool {
		out := n.shell("ip -br link; ip route show proto 83; ip -6 route show proto 83")
		return strings.Count(out, "slub") == 2 && strings.Count(out, "unreachable") == 2
	})
}

// installRules writes a ruleset, accepts the pod network in another's table, and leaves the links
// of a probe.
func (n *installed) installRules() {
	n.t.Helper()
	pods := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"),
		netip.MustParsePrefix("fd00:10:244::/48")}
	n.do(func() error {
		table, err := table.Open(table.Options{Own: true}) // an orphan by the time of the uninstall
		if err != nil {
			return err
		}
		cluster := cluster.New(cluster.Options{Node: "n1"})
		cluster.SetEndpoint(policy.Endpoint{
			ID: "a/eth0", Pod: selector.Pod{Namespace: "dev", Name: "pod-a"},
			Interface: "slup00000000000",
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2")},
		})
		rules := ruleset.NewRenderer(ruleset.Config{
			Network: ruleset.Network{Pods: pods, Tunnel: "sluice.1", Port: 8472}}).Ruleset(cluster)
		_, errAccept := new(others.Accepter).Ensure(n.t.Context(), pods)
		return errors.Join(table.Sync(n.t.Context(), rules), table.Close(), errAccept)
	})
	n.shell("ip link add slprobe0 up type veth peer name slprobe1; ip route add 10.244.1.250/32 " +
		"dev slprobe0 proto 85; ip link add slprobe2 type veth peer name slprobe3")
}

func (n *installed) uninstall() (err error) {
	_ = n.netns.Do(func(ns.NetNS) error { // its own error is about the namespace, which is open
		err = n.u.run(n.t.Context())
		return nil
	})
	return err
}

// onlyIn is what is in a dump and not in another.
func onlyIn(a, b []string) string {
	var lines []string
	for _, line := range a {
		if !slices.Contains(b, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func (n *installed) expect(want []string, when string) {
	n.t.Helper()
	got := n.dump()
	if more, less := onlyIn(got, want), onlyIn(want, got); more+less != "" {
		n.t.Errorf("%s: there is\n%s\nand missing is\n%s", when, more, less)
	}
}

// TestUninstall: while an agent or pods are there, nothing is touched, and afterwards nothing is
// left, but what others had there.
func TestUninstall(t *testing.T) {
	t.Parallel()
	n, before := newInstalled(t)
	with := n.dump()
	added := onlyIn(with, before)
	for _, control := range []string{
		"nft table inet sluice", "sluice: pod network", "link sluice.1", "link slub",
		"link slprobe0", "route unreachable 10.244.1.0/24", "proto 84",
		"proto 85", "neighbour 10.244.1.", "fdb ", "file /etc/05-sluice.conflist",
		"file /bin/sluice", "file /run/sluice/attachments/a@eth0.json",
		"file /run/flannel/subnet.env", "file /run/NetworkManager/conf.d/05-sluice.conf",
		"file /run/systemd/network/05-sluice.network",
	} {
		if !strings.Contains(added, control) {
			t.Errorf("the set-up lacks %q:\n%s", control, added)
		}
	}
	// A heartbeat may be being written in any dump.
	withoutTemporary := func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool {
			return strings.HasPrefix(line, "file /run/sluice/.new-")
		})
	}
	if err := n.uninstall(); err == nil || !strings.Contains(err.Error(), "an agent runs") {
		t.Errorf("with an agent: %v", err)
	}
	if got := onlyIn(withoutTemporary(with), n.dump()); got != "" {
		t.Errorf("with an agent it removed\n%s", got)
	}
	n.stop()
	stopped := n.dump()
	if err := n.uninstall(); err == nil ||
		!strings.Contains(err.Error(),
			"2 pods have their network from Sluice: dev/pod-a, dev/pod-b;") {
		t.Errorf("with pods: %v", err)
	}
	n.expect(stopped, "with pods")

	n.must(n.pods[0].Close()) // without a DEL
	n.await("one pod's end", func() bool {
		return strings.Count("\n"+n.shell("ip -br link"), "\nslup") == 2
	})
	if err := n.uninstall(); err == nil ||
		!strings.Contains(err.Error(), "1 pods have their network from Sluice: dev/pod-b;") {
		t.Errorf("with a pod: %v", err)
	}
	n.must(n.pods[1].Close())
	n.await("the other's end", func() bool {
		return strings.Count("\n"+n.shell("ip -br link"), "\nslup") == 1
	})
	for _, when := range []string{"after it", "after it, twice"} {
		if err := n.uninstall(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		n.expect(before, when)
	}
}

// TestUninstallByForce: pods are cut off then, and so is a left-over link without being asked.
func TestUninstallByForce(t *testing.T) {
	t.Parallel()
	n, before := newInstalled(t)
	n.stop()
	user := filepath.Join(n.u.cniConfDir, "10-flannel.conflist")
	n.must(os.WriteFile(user, []byte(`{"plugins":[{"type":"bridge"},{"type":"sluice"}]}`), 0o600))
	n.u.force = true
	n.must(n.uninstall())
	n.expect(append(before, "file /etc/10-flannel.conflist"), "by force")

	// Flannel's, from now on, also where an agent ran with --policy-only.
	n.must(overlay.SubnetEnv{MTU: 1450}.WriteFile(n.u.subnetFile))
	n.must(os.MkdirAll(n.u.stateDir, 0o700))
	n.must(os.WriteFile(filepath.Join(n.u.stateDir, "heartbeat.json"), []byte("{}"), 0o600))
	n.shell("ip link add slup0123456789a type veth peer name peer0")
	n.u.force = false
	err := n.uninstall()
	if err == nil || !strings.Contains(err.Error(), "10-flannel.conflist use the plugin") {
		t.Errorf("with a user of the plugin: %v", err)
	}
	n.must(os.Remove(user))
	n.must(n.uninstall())
	n.expect(append(before, "file /run/flannel", "file /run/flannel/subnet.env"), "in the end")
}

func TestParseUninstall(t *testing.T) {
	silenceStderr(t)
	u, wait, err := parseUninstall(
		[]string{"--state-dir=/run/x", "--sysctl-dir=/host/proc/sys/net", "--wait"})
	if err != nil || !wait || u.socket != "/run/x/cni.sock" || u.binDir != "/opt/cni/bin" ||
		u.force {
		t.Errorf("got %+v, %t, %v", u, wait, err)
	}
	if _, _, err := parseUninstall([]string{"now"}); err == nil {
		t.Error("an argument that isn't a flag is taken")
	}
}

// Without --plugin it takes the one beside the program, which a test has not.
func TestInstallCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	plugin := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(plugin, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	run, args := command([]string{"install", "--bin-dir", dir, "--plugin", plugin})
	for range 2 {
		if err := run(t.Context(), args); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "sluice")); err != nil ||
		string(got) != "program" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, args := range [][]string{{"install", "--bin-dir", dir},
		{"install", "--bin-dir", dir, "now"}, {"install", "--bin-dir="}} {
		if run, args := command(args); run(t.Context(), args) == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
