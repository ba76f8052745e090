package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// TestAddDel is a pod's life: its policy first, then its link; it talks at once; nothing is left.
func TestAddDel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.server.SetMTU(1450)
	a := n.newPod("c1", "pod-a")
	n.enforcer.setAttach(func(context.Context, Attachment) error {
		if host, pod := n.hostLinks(), podLinks(t, a.netns); len(host)+len(pod) > 0 {
			return fmt.Errorf("links before the policy: %v, %v", host, pod)
		}
		return nil
	})
	got, err := json.Marshal(a.mustAdd())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"1.1.0",` +
		`"interfaces":[{"name":"slupbcb64b37750","mac":"a2:1f:d2:d3:5f:7c","mtu":1450},` +
		`{"name":"eth0","mac":"ea:93:8c:71:71:ad","mtu":1450,"sandbox":"` + a.args.Netns + `"}],` +
		`"ips":[{"interface":1,"address":"10.1.0.1/32","gateway":"169.254.1.1"},{"interface":1,"address":"fd00:1::1/128","gateway":"fe80::1"}],` +
		`"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"}]}`
	if diff := cmp.Diff(anyJSON(t, []byte(want)), anyJSON(t, got)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	n.expect("c1/eth0")
	n.enforcer.setDetach(func(string) error {
		if host, pod := n.hostLinks(), podLinks(t, a.netns); len(host)+len(pod) > 0 {
			return fmt.Errorf("the address becomes free with links still there: %v, %v", host, pod)
		}
		return nil
	})
	a.mustDel()
	a.expectNothing()
	a.mustDel()
	a.expectNothing()
}

func anyJSON(t *testing.T, data []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return value
}

// TestFirstPackets: the first connection right after ADD works, in every direction and both families.
func TestFirstPackets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ podCIDRs []netip.Prefix }{
		"dual stack": {prefixes("10.1.0.0/24", "fd00:1::/64")},
		"IPv6 first": {prefixes("fd00:1::/64", "10.1.0.0/24")},
		"IPv4 only":  {prefixes("10.1.0.0/24")},
		"IPv6 only":  {prefixes("fd00:1::/64")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.server.SetPodCIDRs(c.podCIDRs)
			serve(t, n.netns)
			var pods []*testPod
			for i := range 4 {
				p := n.newPod(fmt.Sprint("c", i), fmt.Sprint("pod-", i))
				serve(t, p.netns)
				result := p.mustAdd()
				if len(result.IPs) != len(c.podCIDRs) || !c.podCIDRs[0].Contains(p.addrs[0]) {
					t.Fatalf("pod %d has %v", i, p.addrs)
				}
				for f, addr := range p.addrs {
					to := func(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, testPort) }
					node := node4
					if addr.Is6() {
						node = node6
					}
					try := func(what string, from ns.NetNS, addr netip.Addr) {
						if err := connect(from, to(addr)); err != nil {
							t.Errorf("%s, %s: %v", what, addr, err)
						}
					}
					if i%2 == 0 {
						try("node to pod", n.netns, addr)
					} else {
						try("pod to older pod", p.netns, pods[i-1].addrs[f])
					}
					try("pod to node", p.netns, node)
					try("pod to itself", p.netns, addr)
					for _, other := range pods {
						try("pod to pod", other.netns, addr)
						try("pod to pod", p.netns, other.addrs[f])
					}
				}
				pods = append(pods, p)
			}
			// Had the link resolved anything, there would be entries that aren't permanent.
			for what, space := range map[string]ns.NetNS{"node": n.netns, "pod": pods[0].netns} {
				for _, line := range lines(t, space, "ip neigh") {
					if !strings.HasSuffix(line, " PERMANENT") {
						t.Errorf("the %s has asked for a neighbour: %s", what, line)
					}
				}
			}
		})
	}
}

// TestWhatIsThere compares both ends with what a person would type.
func TestWhatIsThere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.server.SetMTU(1450)
	a := n.newPod("c1", "pod-a")
	a.mustAdd()
	for _, c := range []struct {
		netns   ns.NetNS
		command string
		want    string
	}{
		{n.netns, "ip -o link show slupbcb64b37750 | grep -o 'NOARP,UP\\|mtu 1450\\|state UP\\|a2:1f.* brd\\|alias.*'", "NOARP,UP\nmtu 1450\nstate UP\na2:1f:d2:d3:5f:7c brd\nalias dev/pod-a"},
		{n.netns, "ip -br addr show slupbcb64b37750 | awk '{print $3 $4}'", "fe80::1/64"},
		{n.netns, "ip -N route show dev slupbcb64b37750", "10.1.0.1 proto 83 scope 253 src 192.0.2.1"},
		{n.netns, "ip -6 -N route show dev slupbcb64b37750 | grep -v fe80", "fd00:1::1 proto 83 src 2001:db8::1 metric 1024 pref medium"},
		{n.netns, "ip neigh", "10.1.0.1 dev slupbcb64b37750 lladdr ea:93:8c:71:71:ad PERMANENT\nfd00:1::1 dev slupbcb64b37750 lladdr ea:93:8c:71:71:ad PERMANENT"},
		{n.netns, "cd /proc/sys/net/ipv6/conf/slupbcb64b37750; cat accept_ra accept_dad addr_gen_mode", "0\n0\n1"},
		{a.netns, "ip -o link show eth0 | grep -o 'BROADCAST,MULTICAST,UP\\|mtu 1450\\|state UP\\|ea:93.* brd'", "BROADCAST,MULTICAST,UP\nmtu 1450\nstate UP\nea:93:8c:71:71:ad brd"},
		{a.netns, "ip -o addr show dev eth0 scope global | awk '{print $4}'", "10.1.0.1/32\nfd00:1::1/128"},
		{a.netns, "ip route", "default via 169.254.1.1 dev eth0 onlink"},
		{a.netns, "ip -6 route show default", "default via fe80::1 dev eth0 metric 1024 onlink pref medium"},
		{a.netns, "ip neigh", "169.254.1.1 dev eth0 lladdr a2:1f:d2:d3:5f:7c PERMANENT\nfe80::1 dev eth0 lladdr a2:1f:d2:d3:5f:7c PERMANENT"},
	} {
		if got := strings.Join(lines(t, c.netns, c.command), "\n"); got != c.want {
			t.Errorf("%s\n%s\n--- want\n%s", c.command, got, c.want)
		}
	}
}

// lines is what a shell command prints in a namespace, without spaces at the ends.
func lines(t testing.TB, netns ns.NetNS, command string) []string {
	t.Helper()
	var output []byte
	err := netns.Do(func(ns.NetNS) (err error) {
		output, err = exec.Command("sh", "-c", command).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
	var all []string
	for line := range strings.Lines(string(output)) {
		all = append(all, strings.TrimSpace(line))
	}
	return all
}

func TestNodeAddressThatIsNotThere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.server.SetNodeAddresses(addrs("198.51.100.1", "2001:db8::99"))
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	a.mustAdd()
	for _, addr := range a.addrs {
		if err := connect(n.netns, netip.AddrPortFrom(addr, testPort)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestIPv6TurnedOffInThePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	lines(t, a.netns, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6")
	a.mustAdd()
	if err := connect(n.netns, netip.AddrPortFrom(a.addrs[1], testPort)); err != nil {
		t.Error(err)
	}
}

// TestFailedAdd: whatever goes wrong, the runtime hears it in the specification's terms, and nothing is left.
func TestFailedAdd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(n *testNode, p *testPod)
		code    uint
		says    string
	}{
		"agent dead": {func(n *testNode, _ *testPod) { n.stop() }, 11, "no answer from the node's agent"},
		"agent killed": {func(n *testNode, _ *testPod) {
			n.stop()
			leaveStaleSocket(n.t, n.socket)
		}, 11, "connection refused"},
		"agent hangs": {func(n *testNode, _ *testPod) {
			n.stop()
			listenAndHang(n.t, n.socket)
		}, 11, "deadline exceeded"},
		"agent talks nonsense": {func(n *testNode, _ *testPod) {
			n.stop()
			listenAndSay(n.t, n.socket, "HTTP/1.1 200 OK\r\n\r\n<html>")
		}, 11, "sent \"<html>\""},
		"agent gives nonsense": {func(n *testNode, _ *testPod) {
			n.stop()
			listenAndSay(n.t, n.socket, "HTTP/1.1 200 OK\r\n\r\n{}")
		}, 11, "that makes sense: interface name"},
		"agent of another version": {func(n *testNode, _ *testPod) {
			n.stop()
			listenAndSay(n.t, n.socket, "HTTP/1.1 404 Not Found\r\n\r\n{\"code\":11,\"msg\":\"only version 2\"}")
		}, 11, "only version 2"},
		"agent refuses": {func(n *testNode, _ *testPod) {
			n.enforcer.setAttach(func(context.Context, Attachment) error { return errors.New("the pod isn't known yet") })
		}, 11, "the pod isn't known yet"},
		"no address": {func(n *testNode, _ *testPod) {
			n.server.SetPodCIDRs(prefixes("10.1.0.0/32"))
		}, 11, "no free address in 10.1.0.0/32"},
		"policy takes too long": {func(n *testNode, _ *testPod) {
			n.enforcer.setAttach(func(ctx context.Context, _ Attachment) error { <-ctx.Done(); return ctx.Err() })
		}, 11, "deadline exceeded"},
		"eth0 is there": {func(_ *testNode, p *testPod) {
			lines(p.n.t, p.netns, "ip link add eth0 type veth peer name other")
		}, 11, "making the pod's link"},
		"address in use": {func(n *testNode, _ *testPod) {
			lines(n.t, n.netns, "ip route add 10.1.0.1 dev lo")
		}, 11, "adding the route to 10.1.0.1: file exists"},
		"address in use, IPv6": {func(n *testNode, _ *testPod) {
			lines(n.t, n.netns, "ip route add fd00:1::1 dev lo")
		}, 11, "adding the route to fd00:1::1: file exists"},
		"no namespace": {func(_ *testNode, p *testPod) { p.args.Netns = "/proc/self/fd/9999" }, 8, "opening the pod's network namespace"},
		"the node's":   {func(n *testNode, p *testPod) { p.args.Netns = nsPath(n.netns) }, 8, "is the node's own"},
		"no pod":       {func(_ *testNode, p *testPod) { p.args.Args = "" }, 4, "K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_INFRA_CONTAINER_ID, K8S_POD_UID"},
		"no UID": {func(_ *testNode, p *testPod) {
			p.args.Args = strings.Split(p.args.Args, ";K8S_POD_UID")[0]
		}, 4, "; K8S_POD_UID"},
		"hostile pod":        {func(_ *testNode, p *testPod) { p.args.Args = podArgsText("dev", "../x", "c1") }, 4, "invalid pod name"},
		"unknown argument":   {func(_ *testNode, p *testPod) { p.args.Args = "X=1" }, 4, "reading CNI_ARGS"},
		"relative socket":    {func(_ *testNode, p *testPod) { p.args.StdinData = []byte(`{"socket":"x"}`) }, 7, "socket isn't an absolute path"},
		"relative directory": {func(_ *testNode, p *testPod) { p.args.StdinData = []byte(`{"stateDir":"x"}`) }, 7, "stateDir isn't an absolute path"},
		"no configuration":   {func(_ *testNode, p *testPod) { p.args.StdinData = nil }, 6, "decoding the network configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.plugin = plugin{addTimeout: 300 * time.Millisecond, delTimeout: patience, undoTimeout: 300 * time.Millisecond}
			p := n.newPod("c1", "pod-a")
			c.prepare(n, p)
			before := podLinks(t, p.netns)
			result, err := p.add()
			if err == nil {
				t.Fatalf("got %v", result)
			}
			mustFail(t, err, c.code, c.says)
			n.expectNoLinks()
			if after := podLinks(t, p.netns); !slices.Equal(before, after) {
				t.Errorf("the pod had %v and has %v", before, after)
			}
			eventually(t, "the agent to undo what it did", func() bool { return len(n.server.Attachments()) == 0 })
			n.expect()
		})
	}
}

func listenAndHang(t testing.TB, path string) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
}

func listenAndSay(t testing.TB, path, text string) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// The test sees what the client makes of it.
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte(text))
			_ = conn.Close()
		}
	}()
}

// TestAddAfterFailure: the same container tries again, as runtimes do, and gets in.
func TestAddAfterFailure(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	n.enforcer.setAttach(func(context.Context, Attachment) error { return errors.New("not yet") })
	if _, err := a.add(); err == nil {
		t.Fatal("ADD without a policy")
	}
	n.enforcer.setAttach(nil)
	a.mustAdd()
	if err := connect(n.netns, netip.AddrPortFrom(a.addrs[0], testPort)); err != nil {
		t.Error(err)
	}
}

// TestAddTwice: the second ADD replaces the link, with the same addresses.
func TestAddTwice(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	first, second := a.mustAdd(), a.mustAdd()
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("first and second result:\n%s", diff)
	}
	for _, addr := range a.addrs {
		if err := connect(n.netns, netip.AddrPortFrom(addr, testPort)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	n.expect("c1/eth0")
}

// TestTwoInterfaces: of one container, one after the other, don't disturb each other.
func TestTwoInterfaces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.newPod("c1", "pod-a")
	serve(t, a.netns)
	a.mustAdd()
	first := a.addrs
	works := func() {
		t.Helper()
		for _, addr := range first {
			if err := connect(n.netns, netip.AddrPortFrom(addr, testPort)); err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		}
	}
	a.args.IfName = "net1"
	a.mustAdd()
	works()
	n.expect("c1/eth0", "c1/net1")
	if got := strings.Join(lines(t, a.netns, "ip route; ip -6 route show default | cut -d' ' -f1-5"), "\n"); strings.Count(got, "dev eth0") != 2 || strings.Count(got, "dev net1") != 2 {
		t.Errorf("the pod's routes:\n%s", got)
	}
	a.mustDel()
	works()
	n.expect("c1/eth0")
}

// TestNewSandbox: an older sandbox of the same pod is replaced, and its late DEL disturbs nobody.
func TestNewSandbox(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	older, newer := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-a")
	serve(t, newer.netns)
	older.mustAdd()
	newer.mustAdd()
	if names := podLinks(t, older.netns); len(names) > 0 {
		t.Errorf("the older sandbox still has %v", names)
	}
	for range 2 {
		if err := connect(n.netns, netip.AddrPortFrom(newer.addrs[0], testPort)); err != nil {
			t.Error(err)
		}
		n.expect("c2/eth0")
		older.mustDel()
	}
	newer.mustDel()
	newer.expectNothing()
}

// TestDelWithoutHelp: DEL needs neither the agent, nor the pod's namespace, nor the pod's name.
func TestDelWithoutHelp(t *testing.T) {
	t.Parallel()
	lose := map[string]func(n *testNode, p *testPod){
		"agent dead":  func(n *testNode, _ *testPod) { n.stop() },
		"agent hangs": func(n *testNode, _ *testPod) { n.stop(); listenAndHang(n.t, n.socket) },
		"agent of another version": func(n *testNode, _ *testPod) {
			n.stop()
			listenAndSay(n.t, n.socket, "HTTP/1.1 404 Not Found\r\n\r\n404 page not found")
		},
		"no namespace":             func(_ *testNode, p *testPod) { p.args.Netns = "" },
		"namespace gone":           func(_ *testNode, p *testPod) { p.args.Netns = filepath.Join(p.n.t.TempDir(), "gone") },
		"namespace is a file":      func(_ *testNode, p *testPod) { p.args.Netns = emptyFile(p.n.t) },
		"no pod name":              func(_ *testNode, p *testPod) { p.args.Args = "" },
		"no pod name, no netns":    func(_ *testNode, p *testPod) { p.args.Args, p.args.Netns = "", "" },
		"agent dead, no pod name":  func(n *testNode, p *testPod) { n.stop(); p.args.Args = "" },
		"agent dead, no namespace": func(n *testNode, p *testPod) { n.stop(); p.args.Netns = "" },
		"nothing":                  func(n *testNode, p *testPod) { n.stop(); p.args.Args, p.args.Netns = "", "" },
	}
	for name, lose := range lose {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.plugin.delTimeout = 300 * time.Millisecond
			p, other := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-b")
			p.mustAdd()
			other.mustAdd()
			lose(n, p)
			for range 2 {
				p.mustDel()
				if names := n.hostLinks(); len(names) != 1 {
					t.Errorf("the node has %v, want only the other pod's", names)
				}
				if _, err := os.Stat(n.server.records.path("c1", "eth0")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the record is still there: %v", err)
				}
			}
			n.server.reap(context.Background()) // as the agent does now and then
			n.expect("c2/eth0")
		})
	}
}

func emptyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDelFails(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	p.mustAdd()
	n.enforcer.setDetach(func(string) error { return errors.New("kernel says no") })
	mustFail(t, p.del(), types.ErrTryAgainLater, "kernel says no")
	n.expectNoLinks()
	n.expect("c1/eth0")
	p.args.ContainerID = "../c1"
	mustFail(t, p.del(), types.ErrInvalidEnvironmentVariables, "containerID")
	p.args.StdinData = []byte("{")
	mustFail(t, p.del(), types.ErrDecodingFailure)
}

// TestForeignLinkSurvivesDel: a link in the pod that isn't ours is left alone, also with our name.
func TestForeignLinkSurvivesDel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	lines(t, p.netns, "ip link add eth0 type veth peer name other")
	p.mustDel()
	if names := podLinks(t, p.netns); len(names) != 2 {
		t.Errorf("the pod has %v, want eth0 and other", names)
	}
}

// TestManyPodsAtOnce: each with its own addresses, each working when its ADD is done.
func TestManyPodsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	serve(t, n.netns)
	pods := make([]*testPod, 100)
	for i := range pods {
		pods[i] = n.newPod(fmt.Sprintf("c%03d", i), fmt.Sprint("pod-", i))
	}
	var done sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]bool{}
	for _, p := range pods {
		done.Go(func() {
			var err error
			nsErr := n.netns.Do(func(ns.NetNS) error {
				result, addErr := n.plugin.add(p.args)
				if err = addErr; err == nil {
					for _, ip := range result.IPs {
						addr, _ := netip.AddrFromSlice(ip.Address.IP)
						p.addrs = append(p.addrs, addr.Unmap())
					}
				}
				return nil
			})
			if err := errors.Join(err, nsErr); err != nil {
				t.Errorf("ADD of %s: %v", p.args.ContainerID, err)
				return
			}
			for _, node := range []netip.Addr{node4, node6} {
				if err := connect(p.netns, netip.AddrPortFrom(node, testPort)); err != nil {
					t.Errorf("%s to %s: %v", p.args.ContainerID, node, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, addr := range p.addrs {
				if seen[addr] {
					t.Errorf("two pods have %s", addr)
				}
				seen[addr] = true
			}
		})
	}
	done.Wait()
	if len(seen) != 200 || len(n.hostLinks()) != 100 {
		t.Errorf("%d addresses, %d links", len(seen), len(n.hostLinks()))
	}
	for _, p := range pods {
		done.Go(func() {
			if err := n.netns.Do(func(ns.NetNS) error { return n.plugin.del(p.args) }); err != nil {
				t.Errorf("DEL of %s: %v", p.args.ContainerID, err)
			}
		})
	}
	done.Wait()
	n.expectNoLinks()
	n.expect()
}

// TestRoutesGoWithTheLink: the kernel takes the routes of a link with it, so a late route can't meet the next pod.
func TestRoutesGoWithTheLink(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	p.mustAdd()
	count := func() (total int) {
		n.inNode(func() error {
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				routes, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
				if err != nil {
					return err
				}
				total += len(routes)
			}
			return nil
		})
		return total
	}
	if got := count(); got != 2 {
		t.Errorf("%d routes are ours, want 2", got)
	}
	p.mustDel()
	if got := count(); got != 0 {
		t.Errorf("%d routes are left", got)
	}
}
