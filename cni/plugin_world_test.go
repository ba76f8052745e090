package cni

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/needroot"
)

// The node's own addresses in tests.
var node4, node6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")

// testNode is a network namespace that forwards, with an agent, in which the plugin runs.
type testNode struct {
	*testAgent
	netns  ns.NetNS
	plugin plugin
}

func newNode(t testing.TB, options ...func(*ServerOptions)) *testNode {
	t.Helper()
	n := &testNode{netns: newNetNS(t), plugin: newPlugin()}
	n.testAgent = newAgent(t, func(o *ServerOptions) {
		o.NetNS, o.withoutKernel, o.withoutHealing = n.netns, false, true
		for _, set := range options {
			set(o)
		}
	})
	n.server.SetNodeAddresses([]netip.Addr{node4, node6})
	n.inNode(func() error {
		for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0o600); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(
			netlink.LinkSetUp(lo),
			netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(singleHost(node4))}),
			netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(singleHost(node6)), Flags: unix.IFA_F_NODAD}))
	})
	return n
}

// healing is the option of a node whose host ends are looked after, as on a real one.
func healing(o *ServerOptions) { o.withoutHealing = false }

func newNetNS(t testing.TB) ns.NetNS {
	t.Helper()
	needroot.Skip(t)
	netns, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	return netns
}

// inNode runs f as the plugin runs on a node.
func (n *testNode) inNode(f func() error) {
	n.t.Helper()
	if err := n.netns.Do(func(ns.NetNS) error { return f() }); err != nil {
		n.t.Fatalf("on the node: %v", err)
	}
}

// testPod is a container's network namespace and what a runtime calls the plugin with for it.
type testPod struct {
	n     *testNode
	netns ns.NetNS
	args  *skel.CmdArgs
	addrs []netip.Addr // once it is on the network
}

func (n *testNode) newPod(container, pod string) *testPod {
	n.t.Helper()
	netns := newNetNS(n.t)
	return &testPod{n: n, netns: netns, args: &skel.CmdArgs{
		ContainerID: container,
		Netns:       nsPath(netns),
		IfName:      "eth0",
		Args:        podArgsText("dev", pod, container),
		StdinData:   n.config("1.1.0"),
	}}
}

func podArgsText(namespace, pod, container string) string {
	return fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=uid-%s",
		namespace, pod, container, pod)
}

// nsPath names a namespace to anyone while it is open.
func nsPath(netns ns.NetNS) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd()) }

func (n *testNode) config(version string) []byte {
	return fmt.Appendf(nil, `{"cniVersion":%q,"name":"sluice","type":"sluice","socket":%q,"stateDir":%q}`, version, n.socket, n.stateDir)
}

func (p *testPod) add() (result *types100.Result, err error) {
	p.n.inNode(func() error {
		added, addErr := p.n.plugin.add(p.args)
		if err = addErr; err == nil {
			result, err = types100.GetResult(added)
		}
		return nil
	})
	if err == nil {
		p.addrs = nil
		for _, ip := range result.IPs {
			addr, _ := netip.AddrFromSlice(ip.Address.IP)
			p.addrs = append(p.addrs, addr.Unmap())
		}
	}
	return result, err
}

func (p *testPod) mustAdd() *types100.Result {
	p.n.t.Helper()
	result, err := p.add()
	if err != nil {
		p.n.t.Fatalf("ADD of %s: %v", p.args.ContainerID, err)
	}
	return result
}

func (p *testPod) del() (err error) {
	p.n.inNode(func() error {
		err = p.n.plugin.del(p.args)
		return nil
	})
	return err
}

func (p *testPod) mustDel() {
	p.n.t.Helper()
	if err := p.del(); err != nil {
		p.n.t.Fatalf("DEL of %s: %v", p.args.ContainerID, err)
	}
}

const testPort = 8080

// serve echoes what comes on a TCP port of every address, until the test ends.
func serve(t testing.TB, netns ns.NetNS) {
	t.Helper()
	err := netns.Do(func(ns.NetNS) error {
		listener, err := net.Listen("tcp", fmt.Sprint(":", testPort))
		if err != nil {
			return err
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
				_, _ = io.CopyN(conn, conn, int64(len("hello"))) // who asked notices if it fails
				_ = conn.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatalf("serving: %v", err)
	}
}

// firstTry is less than a second, after which the kernel sends a lost SYN again.
const firstTry = 900 * time.Millisecond

// connect opens a connection from a namespace and expects its echo.
func connect(netns ns.NetNS, to netip.AddrPort) error {
	return netns.Do(func(ns.NetNS) error {
		conn, err := net.DialTimeout("tcp", to.String(), firstTry)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(firstTry)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return err
		}
		answer, err := io.ReadAll(conn)
		if err == nil && string(answer) != "hello" {
			err = fmt.Errorf("the echo of hello is %q", answer)
		}
		return err
	})
}

// hostLinks are the names of the pods' links on the node.
func (n *testNode) hostLinks() []string {
	n.t.Helper()
	var names []string
	n.inNode(func() error {
		links, err := netlink.LinkList()
		for _, link := range links {
			if link.Attrs().Name != "lo" {
				names = append(names, link.Attrs().Name)
			}
		}
		return err
	})
	return names
}

// expectNothing: no link on either side, no route, and nothing that the agent knows.
func (p *testPod) expectNothing() {
	p.n.t.Helper()
	p.n.settle()
	p.n.expectNoLinks()
	if names := podLinks(p.n.t, p.netns); len(names) > 0 {
		p.n.t.Errorf("the pod has %v", names)
	}
	p.n.expect()
}

func (n *testNode) expectNoLinks() {
	n.t.Helper()
	if names := n.hostLinks(); len(names) > 0 {
		n.t.Errorf("the node has %v", names)
	}
}

func podLinks(t testing.TB, netns ns.NetNS) []string {
	t.Helper()
	var names []string
	err := netns.Do(func(ns.NetNS) error {
		interfaces, err := net.Interfaces()
		for _, i := range interfaces {
			if i.Name != "lo" {
				names = append(names, i.Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
