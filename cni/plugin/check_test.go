package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// check calls the plugin with the result of the pod's ADD, which edit may change.
func (p *testPod) check(result *types100.Result, edit func(*types100.Result)) (err error) {
	p.n.T.Helper()
	var prev types100.Result
	data, err := json.Marshal(result)
	if err != nil {
		p.n.T.Fatal(err)
	}
	if err := json.Unmarshal(data, &prev); err != nil {
		p.n.T.Fatal(err)
	}
	if edit != nil {
		edit(&prev)
	}
	return p.checkWith(`,"prevResult":` + mustJSON(p.n.T, &prev))
}

// checkWith calls the plugin with more in the configuration.
func (p *testPod) checkWith(more string) (err error) {
	p.n.T.Helper()
	args := *p.Args
	args.StdinData = []byte(strings.TrimSuffix(string(args.StdinData), "}") + more + "}")
	p.n.InNode(func() error {
		err = p.n.plugin.Check(&args)
		return nil
	})
	return err
}

func mustJSON(t testing.TB, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestCheck: every thing that ADD made is looked at, one difference is one line, and nothing is
// mended.
func TestCheck(t *testing.T) {
	t.Parallel()
	const link = "slupbcb64b37750"
	inNode := func(n *testNode, _ *testPod) ns.NetNS { return n.NetNS }
	inPod := func(_ *testNode, p *testPod) ns.NetNS { return p.NetNS }
	for name, c := range map[string]struct {
		where   func(*testNode, *testPod) ns.NetNS
		command string
		want    []string // all of the lines
	}{
		"all is well": {inNode, "true", nil},
		"more than ADD made": {inPod, "ip addr add 10.9.9.9/32 dev eth0; ip route add " +
			"10.8.0.0/16 via 169.254.1.1 dev eth0 onlink", nil},
		"pod: MTU": {inPod, "ip link set eth0 mtu 1400",
			[]string{"pod: eth0 has the MTU 1400, want 1450"}},
		"pod: MAC": {inPod, "ip link set eth0 address 02:00:00:00:00:09", []string{
			// with which the kernel forgets its neighbours
			"pod: eth0 has the MAC 02:00:00:00:00:09, want ea:93:8c:71:71:ad",
			"pod: eth0 lacks the permanent neighbour 169.254.1.1 with a2:1f:d2:d3:5f:7c",
			"pod: eth0 lacks the permanent neighbour fe80::1 with a2:1f:d2:d3:5f:7c",
		}},
		"pod: address": {inPod, "ip -6 addr del fd00:1::1/128 dev eth0",
			[]string{"pod: eth0 lacks the address fd00:1::1/128"}},
		"pod: wider address": {inPod,
			"ip addr add 10.1.0.1/24 dev eth0; ip addr del 10.1.0.1/32 dev eth0",
			[]string{"pod: eth0 lacks the address 10.1.0.1/32"}},
		"pod: default route": {inPod, "ip route del default",
			[]string{"pod: eth0 lacks the route to 0.0.0.0/0 via 169.254.1.1"}},
		"pod: other gateway": {inPod, "ip -6 route replace default via fe80::2 dev eth0",
			[]string{"pod: eth0 lacks the route to ::/0 via fe80::1"}},
		"pod: neighbour": {inPod, "ip neigh del 169.254.1.1 dev eth0",
			[]string{"pod: eth0 lacks the permanent neighbour 169.254.1.1 with a2:1f:d2:d3:5f:7c"}},
		"pod: neighbour's MAC": {inPod,
			"ip neigh replace fe80::1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
			[]string{"pod: eth0 lacks the permanent neighbour fe80::1 with a2:1f:d2:d3:5f:7c"}},
		"host: neighbour": {inNode, "ip neigh del 10.1.0.1 dev " + link,
			[]string{"host: " + link +
				" lacks the permanent neighbour 10.1.0.1 with ea:93:8c:71:71:ad"}},
		"host: routes": {inNode, "ip route del 10.1.0.1; ip -6 route del fd00:1::1",
			[]string{"host: " + link + " lacks the route to 10.1.0.1/32",
				"host: " + link + " lacks the route to fd00:1::1/128"}},
		"host: address": {inNode, "ip -6 addr del fe80::1/64 dev " + link,
			[]string{"host: " + link + " lacks the address fe80::1/64"}},
		"host: ARP": {inNode, "ip link set " + link + " arp on", []string{
			"host: " + link + " has ARP on, want it off", // also with that
			"host: " + link + " lacks the permanent neighbour 10.1.0.1 with ea:93:8c:71:71:ad",
			"host: " + link + " lacks the permanent neighbour fd00:1::1 with ea:93:8c:71:71:ad",
		}},
		"host: MTU": {inNode, "ip link set " + link + " mtu 1500",
			[]string{"host: " + link + " has the MTU 1500, want 1450"}},
		"host: sysctl": {inNode, "echo 0 > /proc/sys/net/ipv4/conf/" + link + "/forwarding",
			[]string{"host: " + link + " has forwarding of ipv4 at 0, want 1"}},
		"host: IPv6 sysctl": {inNode, "echo 1 > /proc/sys/net/ipv6/conf/" + link + "/accept_ra",
			[]string{"host: " + link + " has accept_ra of ipv6 at 1, want 0"}},
		"host: IPv6 off": {inNode, "echo 1 > /proc/sys/net/ipv6/conf/" + link + "/disable_ipv6",
			[]string{
				// which takes all else away
				"host: " + link + " has disable_ipv6 of ipv6 at 1, want 0",
				"host: " + link + " lacks the address fe80::1/64",
				"host: " + link + " lacks the permanent neighbour fd00:1::1 with ea:93:8c:71:71:ad",
				"host: " + link + " lacks the route to fd00:1::1/128",
			}},
		"host: alias": {inNode, "ip link set " + link + " alias nobody",
			[]string{"host: " + link + ` has the alias "nobody", want "dev/pod-a"`}},
		"host: another's route": {inNode, "ip route replace 10.1.0.1 dev lo",
			[]string{"host: " + link + " lacks the route to 10.1.0.1/32"}},
		"host: nobody's route": {inNode, "ip route replace 10.1.0.1 dev " + link,
			[]string{"host: " + link + " lacks the route to 10.1.0.1/32"}},
		"host: route's source": {inNode,
			"ip route replace 10.1.0.1 dev " + link + " proto 83 scope link", []string{
				"host: " + link +
					" has another route to 10.1.0.1/32, want that of: ip route replace " +
					"10.1.0.1/32 dev " + link +
					" proto 83 scope link src 192.0.2.1",
			}},
		"host: down": {inNode, "ip link set " + link + " down", []string{
			"pod: eth0 is not up",
			"host: " + link + " is not up",
			"host: " + link + " lacks the address fe80::1/64",
			"host: " + link + " lacks the permanent neighbour 10.1.0.1 with ea:93:8c:71:71:ad",
			"host: " + link + " lacks the permanent neighbour fd00:1::1 with ea:93:8c:71:71:ad",
			"host: " + link + " lacks the route to 10.1.0.1/32",
			"host: " + link + " lacks the route to fd00:1::1/128",
		}},
		"gone": {inPod, "ip link del eth0",
			[]string{"pod: eth0 is missing", "host: " + link + " is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.server.SetMTU(1450)
			p := n.newPod("c1", "pod-a")
			result := p.MustAdd()
			if err := p.check(result, nil); err != nil {
				t.Fatalf("right after ADD: %v", err)
			}
			cnitest.Lines(t, c.where(n, p), c.command)
			for range 2 {
				expectDifferences(t, p.check(result, nil), c.want...)
			}
		})
	}
}

func expectDifferences(t *testing.T, err error, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("got %v", err)
		}
		return
	}
	cnitest.MustFail(t, err, cni.CodeDiffers, want...)
	known := new(types.Error)
	if errors.As(err, &known) && !slices.Equal(strings.Split(known.Details, "\n"), want) {
		t.Errorf("got:\n%s\nwant:\n%s", known.Details, strings.Join(want, "\n"))
	}
}

// TestCheckAgent: what the agent has to say, and what prevResult does.
func TestCheckAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.newPod("c1", "pod-a")
	result := p.MustAdd()
	expectDifferences(t, p.check(result, func(r *types100.Result) { r.IPs = r.IPs[:1] }),
		"agent: the attachment has the addresses [10.1.0.1 fd00:1::1], and prevResult [10.1.0.1]")
	// A plugin behind ours changed the MTU and the routes.
	cnitest.Lines(t, p.NetNS, "ip link set eth0 mtu 1300; ip -6 route del default")
	expectDifferences(t, p.check(result, func(r *types100.Result) {
		r.Interfaces[1].Mtu, r.Routes = 1300, r.Routes[:1]
	}))
	n.Enforcer.Forget()
	cnitest.Lines(t, p.NetNS, "ip -6 route add default via fe80::1 dev eth0 onlink")
	expectDifferences(t, p.check(result, func(r *types100.Result) { r.Interfaces[1].Mtu = 1300 }),
		"agent: the pod's policy: isn't in the kernel")
	cnitest.MustFail(t, p.checkWith(""), types.ErrInvalidNetworkConfig, "prevResult",
		"there is none")
	cnitest.MustFail(t,
		p.checkWith(
			`,"prevResult":{"cniVersion":"1.1.0","ips":[{"interface":7,"address":"10.1.0.1/32"}]}`),
		types.ErrInvalidNetworkConfig, "ips[0].interface: 7 of 0")
	cnitest.MustFail(t, p.checkWith(`,"prevResult":7`), types.ErrDecodingFailure, "prevResult")
	p.MustDel()
	n.Expect()
	expectDifferences(t, p.check(result, nil), "agent: attachment c1/eth0 isn't known")
	n.Stop()
	cnitest.MustFail(t, p.check(result, nil), types.ErrTryAgainLater,
		"no answer from the node's agent")
}

// TestCheckHostPorts: what a host port of IPv4 needs is looked at where the runtime says at CHECK
// too that there is one.
func TestCheckHostPorts(t *testing.T) {
	t.Parallel()
	const link = "slupbcb64b37750"
	const lacks = "host: " + link + " has route_localnet of ipv4 at 0, want 1"
	for name, c := range map[string]struct {
		atAdd, atCheck string // the address of the host port; "none": there is none
		want           []string
	}{
		"every address":     {"", "", []string{lacks}},
		"IPv4":              {"0.0.0.0", "0.0.0.0", []string{lacks}},
		"IPv6":              {"::", "::", nil},
		"not said at CHECK": {"", "none", nil},
		"none":              {"none", "none", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			p := n.newPod("c1", "pod-a")
			plain := strings.TrimSuffix(string(p.Args.StdinData), "}")
			with := func(hostIP string) []byte {
				if hostIP == "none" {
					return []byte(plain + "}")
				}
				return fmt.Appendf(nil,
					`%s,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":%q}]}}`, plain, hostIP)
			}
			p.Args.StdinData = with(c.atAdd)
			result := p.MustAdd()
			p.Args.StdinData = with(c.atCheck)
			if err := p.check(result, nil); err != nil {
				t.Errorf("right after ADD: %v", err)
			}
			cnitest.Lines(t, n.NetNS, "echo 0 > /proc/sys/net/ipv4/conf/"+link+"/route_localnet")
			expectDifferences(t, p.check(result, nil), c.want...)
		})
	}
}
