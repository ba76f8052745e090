package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// lines is what a shell command prints in a namespace, without spaces at the ends. Its complaints count only if it fails: ip complains
// of namespaces of other tests that end while it looks.
func lines(t testing.TB, netns ns.NetNS, command string) []string {
	t.Helper()
	var output []byte
	err := netns.Do(func(ns.NetNS) (err error) {
		output, err = exec.Command("sh", "-c", command).Output()
		return err
	})
	if err != nil {
		var stderr []byte
		if failed := new(exec.ExitError); errors.As(err, &failed) {
			stderr = failed.Stderr
		}
		t.Fatalf("%s: %v\n%s%s", command, err, output, stderr)
	}
	var all []string
	for line := range strings.Lines(string(output)) {
		all = append(all, strings.TrimSpace(line))
	}
	return all
}

func emptyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const noon = 12 * time.Hour // since the boot

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func sameAddr(a, b netip.Addr) bool { return a == b }

func newAttachment(container, pod string, addresses ...string) Attachment {
	return Attachment{
		ContainerID: container, IfName: "eth0",
		PodNamespace: "dev", PodName: pod, PodUID: "1a2b-" + pod,
		Interface: InterfaceName("dev", pod, "eth0"),
		Addresses: addrs(addresses...),
		MTU:       1450,
	}
}

func newRecords(t *testing.T, all ...Attachment) records {
	t.Helper()
	r := openRecords(filepath.Join(t.TempDir(), "state"))
	if err := r.makeDirectories(); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if err := r.write(a); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func write(content string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func goodRequest() AddRequest {
	return AddRequest{ContainerID: "0123abcd", IfName: "eth0", PodNamespace: "dev", PodName: "web-0.db", PodUID: "4D-aa"}
}

// prevResult is what a plugin before ours says that it gave: the link's addresses, and something else's.
func prevResult(version string, addresses ...string) string {
	var ips []string
	for _, address := range addresses {
		family := ""
		if version == "0.4.0" {
			family = `"version":"4",`
			if strings.Contains(address, ":") {
				family = `"version":"6",`
			}
		}
		ips = append(ips, fmt.Sprintf(`{%s"interface":1,"address":%q,"gateway":"10.1.0.100"}`, family, address))
	}
	return fmt.Sprintf(`{"cniVersion":%q,"interfaces":[{"name":"cni0","mac":"02:00:00:00:00:01"},`+
		`{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/x"}],"ips":[%s],`+
		`"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.96.0.10"]}}`, version, strings.Join(ips, ","))
}

// newPolicyPod is a pod that another plugin has wired.
func (n *testNode) newPolicyPod(container, version, more string) *testPod {
	n.t.Helper()
	p := n.newPod(container, "pod-"+container)
	lines(n.t, p.netns, "ip link add eth0 type veth peer name other; ip addr add 10.1.0.5/24 dev eth0")
	p.args.StdinData = []byte(strings.TrimSuffix(string(n.config(version)), "}") + `,"mode":"policy"` + more + "}")
	return p
}

// run calls a verb as a runtime does.
func (p *testPod) run(verb func(*skel.CmdArgs) error) (err error) {
	p.n.inNode(func() error {
		err = verb(p.args)
		return nil
	})
	return err
}

// named makes the pod's network namespace known by a path, as runtimes do, until forget.
func (p *testPod) named() (forget func()) {
	p.n.t.Helper()
	path := emptyFile(p.n.t)
	if err := unix.Mount(p.args.Netns, path, "", unix.MS_BIND, ""); err != nil {
		p.n.t.Fatal(err)
	}
	p.args.Netns = path
	unmount := func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !os.IsNotExist(err) && err != unix.EINVAL {
			p.n.t.Errorf("unmounting the pod's namespace: %v", err)
		}
	}
	p.n.t.Cleanup(unmount)
	return func() {
		unmount()
		if err := os.Remove(path); err != nil {
			p.n.t.Error(err)
		}
	}
}

// loseLink does what happens to a pod's link when its network namespace goes.
func (p *testPod) loseLink() { lines(p.n.t, p.netns, "ip link del eth0") }

// leaveStaleSocket is what a killed server leaves.
func leaveStaleSocket(t testing.TB, path string) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}

// pluginStatus asks the plugin as a runtime does.
func (a *testAgent) pluginStatus() error {
	config := []byte(`{"cniVersion":"1.1.0","name":"sluice","type":"sluice","socket":"` + a.socket + `","stateDir":"` + a.stateDir + `"}`)
	return newPlugin().status(&skel.CmdArgs{StdinData: config})
}

// age makes the agent's last heartbeat older.
func (a *testAgent) age(by time.Duration) {
	a.t.Helper()
	h, err := readHeartbeat(a.stateDir)
	if err != nil || h.BootID == "" {
		a.t.Fatalf("there is no heartbeat: %v and %v", h, err)
	}
	h.Beat -= by
	if err := writeJSON(heartbeatPath(a.stateDir), h); err != nil {
		a.t.Fatal(err)
	}
}

// becomesReady waits until STATUS succeeds.
func (a *testAgent) becomesReady() {
	a.t.Helper()
	eventually(a.t, "STATUS to succeed", func() bool { return a.pluginStatus() == nil })
}

// inUse are the addresses of a ledger that don't cool down.
func (l ledger) inUse() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(l.Taken), func(addr netip.Addr) bool { _, isFreed := l.Freed[addr]; return isFreed })
}

// mustBeOfTheSpecification wants no error, or one that tells the runtime what is wrong.
func mustBeOfTheSpecification(t *testing.T, err error) {
	t.Helper()
	if known := new(types.Error); err != nil && (!errors.As(err, &known) || known.Code == 0 || known.Msg == "") {
		t.Errorf("not an error of the specification: %v", err)
	}
}
