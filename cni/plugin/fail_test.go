package plugin

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestFailedAdd: for each failure, the runtime gets an error of the specification, and nothing is
// left.
func TestFailedAdd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(n *testNode, p *testPod)
		code    uint
		says    string
	}{
		"agent dead": {func(n *testNode, _ *testPod) { n.Stop() }, 11,
			"no answer from the node's agent"},
		"agent killed": {func(n *testNode, _ *testPod) {
			n.Stop()
			cnitest.LeaveStaleSocket(n.T, n.Socket)
		}, 11, "connection refused"},
		"agent hangs": {func(n *testNode, _ *testPod) {
			n.Stop()
			listenAndHang(n.T, n.Socket)
		}, 11, "deadline exceeded"},
		"agent talks nonsense": {func(n *testNode, _ *testPod) {
			n.Stop()
			listenAndSay(n.T, n.Socket, "HTTP/1.1 200 OK\r\n\r\n<html>")
		}, 11, "sent \"<html>\""},
		"agent gives nonsense": {func(n *testNode, _ *testPod) {
			n.Stop()
			listenAndSay(n.T, n.Socket, "HTTP/1.1 200 OK\r\n\r\n{}")
		}, 11, "that makes sense: interface name"},
		"agent of another version": {func(n *testNode, _ *testPod) {
			n.Stop()
			listenAndSay(n.T, n.Socket,
				"HTTP/1.1 404 Not Found\r\n\r\n{\"code\":11,\"msg\":\"only version 2\"}")
		}, 11, "only version 2"},
		"agent refuses": {func(n *testNode, _ *testPod) {
			n.Enforcer.SetAttach(func(context.Context, cni.Attachment) error {
				return errors.New("the pod isn't known yet")
			})
		}, 11, "the pod isn't known yet"},
		"no address": {func(n *testNode, _ *testPod) {
			n.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/32"))
		}, 11, "no free address in 10.1.0.0/32"},
		"policy takes too long": {func(n *testNode, _ *testPod) {
			n.Enforcer.SetAttach(func(ctx context.Context, _ cni.Attachment) error {
				<-ctx.Done()
				return ctx.Err()
			})
		}, 11, "deadline exceeded"},
		"eth0 is there": {func(_ *testNode, p *testPod) {
			cnitest.Lines(p.n.T, p.NetNS, "ip link add eth0 type veth peer name other")
		}, 11, "making the pod's link"},
		"address in use": {func(n *testNode, _ *testPod) {
			cnitest.Lines(n.T, n.NetNS, "ip route add 10.1.0.1 dev lo")
		}, 11, "adding the route to 10.1.0.1: file exists"},
		"address in use, IPv6": {func(n *testNode, _ *testPod) {
			cnitest.Lines(n.T, n.NetNS, "ip route add fd00:1::1 dev lo")
		}, 11, "adding the route to fd00:1::1: file exists"},
		"no namespace": {func(_ *testNode, p *testPod) { p.Args.Netns = "/proc/self/fd/9999" }, 8,
			"opening the pod's network namespace"},
		"the node's": {func(n *testNode, p *testPod) { p.Args.Netns = cnitest.NSPath(n.NetNS) },
			8, "is the node's own"},
		"no pod": {func(_ *testNode, p *testPod) { p.Args.Args = "" }, 4,
			"K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_INFRA_CONTAINER_ID, K8S_POD_UID"},
		"no UID": {func(_ *testNode, p *testPod) {
			p.Args.Args = strings.Split(p.Args.Args, ";K8S_POD_UID")[0]
		}, 4, "; K8S_POD_UID"},
		"hostile pod": {func(_ *testNode, p *testPod) {
			p.Args.Args = cnitest.PodArgsText("dev", "../x", "c1")
		}, 4, "invalid pod name"},
		"unknown argument": {func(_ *testNode, p *testPod) { p.Args.Args = "X=1" }, 4,
			"reading CNI_ARGS"},
		"relative socket": {func(_ *testNode, p *testPod) {
			p.Args.StdinData = []byte(`{"socket":"x"}`)
		}, 7, "socket isn't an absolute path"},
		"relative directory": {func(_ *testNode, p *testPod) {
			p.Args.StdinData = []byte(`{"stateDir":"x"}`)
		}, 7, "stateDir isn't an absolute path"},
		"no configuration": {func(_ *testNode, p *testPod) { p.Args.StdinData = nil }, 6,
			"decoding the network configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			*n.plugin = Plugin{addTimeout: 300 * time.Millisecond, delTimeout: cnitest.Patience,
				undoTimeout: 300 * time.Millisecond}
			p := n.newPod("c1", "pod-a")
			c.prepare(n, p)
			before := cnitest.LinkNames(t, p.NetNS)
			result, err := p.Add()
			if err == nil {
				t.Fatalf("got %v", result)
			}
			cnitest.MustFail(t, err, c.code, c.says)
			n.ExpectNoLinks()
			if after := cnitest.LinkNames(t, p.NetNS); !slices.Equal(before, after) {
				t.Errorf("the pod had %v and has %v", before, after)
			}
			cnitest.Eventually(t, "the agent to undo what it did", func() bool {
				return len(n.server.Attachments()) == 0
			})
			n.Expect()
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
	cnitest.Serve(t, a.NetNS)
	n.Enforcer.SetAttach(func(context.Context, cni.Attachment) error {
		return errors.New("not yet")
	})
	if _, err := a.Add(); err == nil {
		t.Fatal("ADD without a policy")
	}
	n.Enforcer.SetAttach(nil)
	a.MustAdd()
	if err := cnitest.Connect(n.NetNS, netip.AddrPortFrom(a.Addrs[0], cnitest.Port)); err != nil {
		t.Error(err)
	}
}
