package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestModePolicy: the other plugin's result is passed on, its link isn't touched, and the pod is
// governed until its DEL.
func TestModePolicy(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, func(o *server.Options) { o.PolicyOnly = true })
			prev := cnitest.PrevResult(version, "10.1.0.5/24", "fd00:1::5/64")
			p := n.newPolicyPod("c1", version, `,"prevResult":`+prev)
			before := cnitest.Lines(t, p.NetNS, "ip addr; ip route; ip neigh")
			var got types.Result
			err := p.Run(func(args *skel.CmdArgs) (err error) {
				got, err = n.plugin.Add(args)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			if err := got.PrintTo(&text); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(anyJSON(t, []byte(prev)),
				anyJSON(t, []byte(text.String()))); diff != "" {
				t.Errorf("the result isn't what came (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before,
				cnitest.Lines(t, p.NetNS, "ip addr; ip route; ip neigh")); diff != "" {
				t.Errorf("the pod's network changed:\n%s", diff)
			}
			n.ExpectNoLinks()
			n.Expect("c1/eth0")
			a := n.server.Attachments()[0]
			if !a.PolicyOnly || a.Interface != "" ||
				fmt.Sprint(a.Addresses) != "[10.1.0.5 fd00:1::5]" {
				t.Errorf("the attachment is %+v", a)
			}
			if err := p.Run(n.plugin.Check); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			n.Enforcer.Forget()
			expectDifferences(t, p.Run(n.plugin.Check),
				"agent: the pod's policy: isn't in the kernel")
			for range 2 {
				p.MustDel()
			}
			n.Expect()
			if diff := cmp.Diff(before,
				cnitest.Lines(t, p.NetNS, "ip addr; ip route; ip neigh")); diff != "" {
				t.Errorf("DEL changed the pod's network:\n%s", diff)
			}
		})
	}
}

// TestModePolicyRefuses results that a plugin before ours must not give.
func TestModePolicyRefuses(t *testing.T) {
	t.Parallel()
	const wired = `,"prevResult":`
	for name, c := range map[string]struct {
		more string
		code uint
		says string
	}{
		"nothing":    {"", 7, "there is none"},
		"no address": {wired + cnitest.PrevResult("1.1.0"), 7, "want at most one of each family"},
		"the node's address": {wired + cnitest.PrevResult("1.1.0", "192.0.2.1/24"), 7,
			"192.0.2.1 is the node's own"},
		"the node's, IPv6": {wired + cnitest.PrevResult("1.1.0", "10.1.0.5/24",
			"2001:db8::1/64"), 7, "2001:db8::1 is the node's own"},
		"another node's pod": {wired + cnitest.PrevResult("1.1.0", "10.2.0.5/24"), 7,
			"10.2.0.5 isn't in the node's podCIDRs [10.1.0.0/24 fd00:1::/64]"},
		"multicast": {wired + cnitest.PrevResult("1.1.0", "224.0.0.1/24"), 7,
			"address 224.0.0.1"},
		"loopback":    {wired + cnitest.PrevResult("1.1.0", "127.0.0.1/8"), 7, "address 127.0.0.1"},
		"unspecified": {wired + cnitest.PrevResult("1.1.0", "0.0.0.0/0"), 7, "address 0.0.0.0"},
		"two of a family": {wired + cnitest.PrevResult("1.1.0", "10.1.0.5/24", "10.1.0.6/24"),
			7, "want at most one of each family"},
		"an interface of none": {wired +
			`{"cniVersion":"1.1.0","ips":[{"interface":-1,"address":"10.1.0.5/24"}]}`, 7,
			"ips[0].interface: -1 of 0"},
		"not a result": {wired + `"x"`, 6, "prevResult"},
		"wrong types":  {wired + `{"cniVersion":"1.1.0","ips":7}`, 6, "prevResult"},
		"another pod's": {wired + cnitest.PrevResult("1.1.0", "10.1.0.9/24"), 11,
			"10.1.0.9 is of pod dev/pod-c0"},
		"host ports": {wired + cnitest.PrevResult("1.1.0", "10.1.0.5/24") +
			`,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"tcp"}]}`,
			2, `runtimeConfig: "{\"portMappings\"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, func(o *server.Options) { o.PolicyOnly = true })
			other := cnitest.RequestFor("c0", "pod-c0")
			other.PolicyOnly, other.Addresses = true, cnitest.Addrs("10.1.0.9")
			n.MustAdd(other)
			p := n.newPolicyPod("c1", "1.1.0", c.more)
			_, err := p.Add()
			cnitest.MustFail(t, err, c.code, c.says)
			n.Expect("c0/eth0")
		})
	}
}

// TestModePolicyAddressAgain: the other plugin may give an address again at once, and a container
// may come back with another.
func TestModePolicyAddressAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *server.Options) { o.PolicyOnly = true })
	first := n.newPolicyPod("c1", "1.1.0",
		`,"prevResult":`+cnitest.PrevResult("1.1.0", "10.1.0.5/24"))
	second := n.newPolicyPod("c2", "1.1.0",
		`,"prevResult":`+cnitest.PrevResult("1.1.0", "10.1.0.5/24"))
	for range 5 {
		first.MustAdd()
		first.MustDel()
		second.MustAdd()
		second.MustDel()
	}
	first.MustAdd()
	first.Args.StdinData = n.newPolicyPod("c1", "1.1.0",
		`,"prevResult":`+cnitest.PrevResult("1.1.0", "10.1.0.6/24")).Args.StdinData
	first.MustAdd()
	n.Expect("c1/eth0")
	got := n.server.Attachments()[0].Addresses
	if len(got) != 1 || got[0] != netip.MustParseAddr("10.1.0.6") {
		t.Errorf("the pod has %s", got)
	}
}

// TestModePolicyFails: a pod whose policy doesn't come isn't let in, and nothing is left of it.
func TestModePolicyFails(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *server.Options) { o.PolicyOnly = true })
	p := n.newPolicyPod("c1", "1.1.0", `,"prevResult":`+cnitest.PrevResult("1.1.0", "10.1.0.5/24"))
	n.Enforcer.SetAttach(func(context.Context, cni.Attachment) error {
		return errors.New("the pod isn't known yet")
	})
	_, err := p.Add()
	cnitest.MustFail(t, err, types.ErrTryAgainLater, "the pod isn't known yet")
	n.Expect()
	if names := cnitest.LinkNames(t, p.NetNS); len(names) != 2 {
		t.Errorf("the other plugin's link is gone: %v", names)
	}
}

// TestMode: an unknown mode is refused by name, and so is a plugin before ours without mode
// "policy".
func TestMode(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	good := p.Args.StdinData
	p.Args.StdinData = []byte(strings.TrimSuffix(string(good), "}") + `,"mode":"polcy"}`)
	_, err := p.Add()
	cnitest.MustFail(t, err, types.ErrInvalidNetworkConfig, `mode isn't "policy" or absent`,
		"polcy")
	p.Args.StdinData = []byte(strings.TrimSuffix(string(good), "}") + `,"prevResult":` +
		cnitest.PrevResult("1.1.0", "10.1.0.5/24") + `}`)
	_, err = p.Add()
	cnitest.MustFail(t, err, types.ErrInvalidNetworkConfig,
		"prevResult: another plugin has wired the pod", `"mode":"policy"`)
	p.Args.StdinData = []byte(strings.TrimSuffix(string(good), "}") +
		`,"dns":{"nameservers":["10.96.0.10"]},"unknownKey":{"x":[1]}}`)
	if result := p.MustAdd(); len(result.DNS.Nameservers) != 1 {
		t.Errorf("the result has the DNS settings %+v", result.DNS)
	}
	for key, value := range map[string]string{"mode": "7", "socket": "[]", "stateDir": "{}",
		"dns": `"x"`} {
		p.Args.StdinData = fmt.Appendf(nil,
			`{"cniVersion":"1.1.0","name":"sluice","type":"sluice",%q:%s}`, key, value)
		_, err := p.Add()
		cnitest.MustFail(t, err, types.ErrDecodingFailure, key)
	}
}

// TestBadRuntimeConfigDoesNotStopDel: what was refused at ADD must not keep the pod from going.
func TestBadRuntimeConfigDoesNotStopDel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	p.MustAdd()
	p.Args.StdinData = []byte(strings.TrimSuffix(string(p.Args.StdinData), "}") +
		`,"mode":"x","prevResult":{"cniVersion":"9"},"runtimeConfig":{"portMappings":7}}`)
	p.MustDel()
	p.expectNothing()
}
