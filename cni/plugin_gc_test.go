package cni

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// gc calls the plugin with a list of valid attachments, in JSON.
func (n *testNode) gc(network, valid string) (err error) {
	config := strings.Replace(string(n.config("1.1.0")), `"name":"sluice"`, fmt.Sprintf(`"name":%q`, network), 1)
	config = strings.TrimSuffix(config, "}") + valid + "}"
	n.inNode(func() error {
		err = n.plugin.gc(&skel.CmdArgs{StdinData: []byte(config)})
		return nil
	})
	return err
}

const keepC1 = `,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"},{"containerID":"unknown","ifname":"eth0"}]`

func TestGC(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(n *testNode)
		network string
		valid   string
		left    []string
	}{
		"keeps what is listed":      {nil, "sluice", keepC1, []string{"c1/eth0"}},
		"another interface":         {nil, "sluice", `,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"net1"}]`, nil},
		"nothing is valid":          {nil, "sluice", `,"cni.dev/valid-attachments":[]`, nil},
		"null":                      {nil, "sluice", `,"cni.dev/valid-attachments":null`, nil},
		"another network":           {nil, "other", `,"cni.dev/valid-attachments":[]`, []string{"c1/eth0", "c2/eth0"}},
		"record without a network":  {func(n *testNode) { n.forgetNetwork("c2") }, "other", `,"cni.dev/valid-attachments":[]`, []string{"c1/eth0"}},
		"without an agent":          {func(n *testNode) { n.stop() }, "sluice", keepC1, []string{"c1/eth0"}},
		"with an agent that's hung": {func(n *testNode) { n.stop(); listenAndHang(n.t, n.socket); n.plugin.delTimeout = firstTry / 3 }, "sluice", keepC1, []string{"c1/eth0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.newPod("c1", "pod-a").mustAdd()
			n.newPod("c2", "pod-b").mustAdd()
			if c.prepare != nil {
				c.prepare(n)
			}
			if err := n.gc(c.network, c.valid); err != nil {
				t.Fatal(err)
			}
			n.settle()
			n.server.reap(t.Context()) // as an agent that was away does when it is back
			if got := len(n.hostLinks()); got != len(c.left) {
				t.Errorf("%d links are left, want %d", got, len(c.left))
			}
			n.expect(c.left...)
		})
	}
}

// forgetNetwork makes a record as agents wrote them before there was a network in it.
func (n *testNode) forgetNetwork(container string) {
	n.t.Helper()
	a, err := n.server.records.read(container, "eth0")
	if err != nil {
		n.t.Fatal(err)
	}
	a.Network = ""
	if err := n.server.records.write(a); err != nil {
		n.t.Fatal(err)
	}
}

// TestGCRefuses: without a list, every pod of the node would go.
func TestGCRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.newPod("c1", "pod-a").mustAdd()
	mustFail(t, n.gc("sluice", ""), types.ErrInvalidNetworkConfig, "cni.dev/valid-attachments is missing")
	mustFail(t, n.gc("sluice", `,"cni.dev/valid-attachments":{"c1":"eth0"}`), types.ErrDecodingFailure, "valid-attachments")
	n.expect("c1/eth0")
}

// TestGCGoesOn: what can't be removed is reported, and the rest goes.
func TestGCGoesOn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, container := range []string{"c1", "c2", "c3"} {
		n.newPod(container, "pod-"+container).mustAdd()
	}
	n.stop()
	record := n.server.records.path("c2", "eth0")
	lines(t, n.netns, "chattr +i "+record+" 2>/dev/null || mount --bind "+record+" "+record)
	undo := func() { lines(t, n.netns, "chattr -i "+record+" 2>/dev/null; umount "+record+" 2>/dev/null; true") }
	err := n.gc("sluice", `,"cni.dev/valid-attachments":[]`)
	undo()
	mustFail(t, err, types.ErrTryAgainLater, "c2/eth0: removing the record")
	n.expectNoLinks()
	if left, bad, _ := n.server.records.readAll(); len(left) != 1 || left[0].ID() != "c2/eth0" || errors.Join(bad...) != nil {
		t.Errorf("left %v and %v, want c2", left, bad)
	}
	if err := n.gc("sluice", `,"cni.dev/valid-attachments":[]`); err != nil {
		t.Errorf("GC again: %v", err)
	}
}
