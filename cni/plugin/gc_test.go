package plugin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// gc calls the plugin with a list of valid attachments, in JSON.
func (n *testNode) gc(network, valid string) (err error) {
	config := strings.Replace(string(n.Config("1.1.0")), `"name":"sluice"`,
		fmt.Sprintf(`"name":%q`, network), 1)
	config = strings.TrimSuffix(config, "}") + valid + "}"
	n.InNode(func() error {
		err = n.plugin.GC(&skel.CmdArgs{StdinData: []byte(config)})
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
		"keeps what is listed": {nil, "sluice", keepC1, []string{"c1/eth0"}},
		"another interface": {nil, "sluice",
			`,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"net1"}]`, nil},
		"nothing is valid": {nil, "sluice", `,"cni.dev/valid-attachments":[]`, nil},
		"null":             {nil, "sluice", `,"cni.dev/valid-attachments":null`, nil},
		"another network": {
			nil, "other", `,"cni.dev/valid-attachments":[]`, []string{"c1/eth0", "c2/eth0"}},
		"record without a network": {func(n *testNode) { n.forgetNetwork("c2") }, "other",
			`,"cni.dev/valid-attachments":[]`, []string{"c1/eth0"}},
		"without an agent": {func(n *testNode) { n.Stop() }, "sluice", keepC1, []string{"c1/eth0"}},
		"with an agent that's hung": {
			func(n *testNode) {
				n.Stop()
				listenAndHang(n.T, n.Socket)
				n.plugin.delTimeout = cnitest.FirstTry / 3
			}, "sluice", keepC1, []string{"c1/eth0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.newPod("c1", "pod-a").MustAdd()
			n.newPod("c2", "pod-b").MustAdd()
			if c.prepare != nil {
				c.prepare(n)
			}
			if err := n.gc(c.network, c.valid); err != nil {
				t.Fatal(err)
			}
			n.expectAfterReap(c.left...) // by an agent that was away, when it is back
			n.expectLinks(len(c.left))
		})
	}
}

// forgetNetwork makes a record as agents wrote them before there was a network in it.
func (n *testNode) forgetNetwork(container string) {
	n.T.Helper()
	a, err := cni.OpenRecords(n.StateDir).Read(container, "eth0")
	if err != nil {
		n.T.Fatal(err)
	}
	a.Network = ""
	if err := cni.OpenRecords(n.StateDir).Write(a); err != nil {
		n.T.Fatal(err)
	}
}

// TestGCRefuses: without a list, every pod of the node would go.
func TestGCRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.newPod("c1", "pod-a").MustAdd()
	cnitest.MustFail(t, n.gc("sluice", ""), types.ErrInvalidNetworkConfig,
		"cni.dev/valid-attachments is missing")
	cnitest.MustFail(t, n.gc("sluice", `,"cni.dev/valid-attachments":{"c1":"eth0"}`),
		types.ErrDecodingFailure, "valid-attachments")
	n.Expect("c1/eth0")
}

// TestGCGoesOn: what can't be removed is reported, and the rest goes.
func TestGCGoesOn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, container := range []string{"c1", "c2", "c3"} {
		n.newPod(container, "pod-"+container).MustAdd()
	}
	n.Stop()
	record := cni.OpenRecords(n.StateDir).Path("c2", "eth0")
	cnitest.Lines(t, n.NetNS, "chattr +i "+record+" 2>/dev/null || mount --bind "+record+" "+record)
	undo := func() {
		cnitest.Lines(t, n.NetNS, "chattr -i "+record+" 2>/dev/null; umount "+record+
			" 2>/dev/null; true")
	}
	err := n.gc("sluice", `,"cni.dev/valid-attachments":[]`)
	undo()
	cnitest.MustFail(t, err, types.ErrTryAgainLater, "c2/eth0: removing the record")
	n.ExpectNoLinks()
	left, bad, _ := cni.OpenRecords(n.StateDir).ReadAll()
	if len(left) != 1 || left[0].ID() != "c2/eth0" || errors.Join(bad...) != nil {
		t.Errorf("left %v and %v, want c2", left, bad)
	}
	if err := n.gc("sluice", `,"cni.dev/valid-attachments":[]`); err != nil {
		t.Errorf("GC again: %v", err)
	}
}
