package foreign

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// stranger is a namespace with the network of a pod, that the API server knows no pod for: one
// whose address isn't reported yet, or what is left of one. It serves TCP 80.
type stranger struct {
	space ns.NetNS
	addrs []netip.Addr
}

// identity is what others know a pod by: its addresses, and, where they remember it, the MAC.
type identity struct {
	addrs []netip.Addr
	mac   string
}

func (w *world) identity(pod string) identity {
	w.t.Helper()
	id := identity{addrs: w.addrs(pod)}
	must(w.t, w.Do(pod, func() error {
		link, err := netlinksafe.LinkByName("eth0")
		if err == nil {
			id.mac = link.Attrs().HardwareAddr.String()
		}
		return err
	}))
	return id
}

// wire puts a stranger on a node's network until the test ends, with the identity of a pod that is
// gone, or else any.
func (w *world) wire(node *lab.Node, name string, id identity) {
	w.t.Helper()
	space, err := ns.TempNetNS()
	must(w.t, err)
	w.t.Cleanup(func() { _ = space.Close() })
	must(w.t, space.Do(func(ns.NetNS) error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o600)
	}))
	config := &libcni.RuntimeConf{
		ContainerID: strings.ReplaceAll(name, "/", "-"), IfName: "eth0",
		NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), space.Fd()),
		Args:  [][2]string{{"IgnoreUnknown", "1"}},
	}
	if id.mac != "" {
		config.CapabilityArgs = object{"ips": id.addrs, "mac": id.mac}
	}
	network, list := runtime(w.t, node)
	s := &stranger{space: space}
	must(w.t, node.Do(func() error {
		answer, err := network.AddNetworkList(w.t.Context(), list, config)
		if err != nil {
			return err
		}
		result, err := types100.GetResult(answer)
		if err != nil {
			return err
		}
		for _, ip := range result.IPs {
			if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
				s.addrs = append(s.addrs, a.Unmap())
			}
		}
		return nil
	}))
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := node.Do(func() error {
			return network.DelNetworkList(ctx, list, config)
		}); err != nil {
			w.t.Errorf("taking %s off the network: %v", name, err)
		}
	})
	var server *probe.Server
	must(w.t, space.Do(func(ns.NetNS) (err error) {
		server, err = probe.ServeTCP(name, 80)
		return err
	}))
	w.t.Cleanup(server.Close)
	w.strangers[name] = s
}

// connect connects from any place, strangers included.
func (w *world) connect(from string, protocol probe.Protocol, dst netip.AddrPort) probe.Result {
	s := w.strangers[from]
	if s == nil {
		return w.Connect(w.t.Context(), from, protocol, dst)
	}
	var r probe.Result
	err := s.space.Do(func(ns.NetNS) error {
		r = probe.Connect(protocol, dst)
		return nil
	})
	if err != nil {
		return probe.Result{Err: err}
	}
	return r
}

// strange are the connections of and to a stranger that a guard stops. The node's own isn't among
// them.
func strange(node, far *lab.Node, name string) []flow {
	return []flow{
		tcp(name, on(node, "shop/web"), 80), tcp(name, on(far, "shop/web"), 80),
		tcp(name, lab.Outside, 80), tcp(name, node.Name(), nodePort),
		tcp(on(node, "shop/client"), name, 80), tcp(on(far, "shop/client"), name, 80),
		tcp(lab.Outside, name, 80),
	}
}

// testStrangers: addresses of the node's podCIDRs that aren't a known pod's are dropped, or not,
// and so is the address of a pod that is gone. The node itself gets through either way.
func (w *world) testStrangers(connects bool) {
	t := w.t
	nodes := w.Nodes()
	for i, node := range nodes {
		if _, list := runtime(t, node); len(list.Plugins) > 1 {
			continue // our plugin lets no stranger in
		}
		far := nodes[(i+1)%len(nodes)]
		never, gone := on(node, "stranger/never"), on(node, "shop/gone")
		w.wire(node, never, identity{})
		w.create(pod(gone, node.Name(), nil, nil))
		w.allowed(strange(node, far, gone)...)
		id := w.identity(gone)
		w.deletePods(gone)
		after := on(node, "stranger/after")
		w.wire(node, after, id)
		for _, name := range []string{never, after} {
			w.expect(connects, strange(node, far, name)...)
			w.allowed(tcp(node.Name(), name, 80))
		}
	}
}

// TestUnknownPodsAllowed: with --unknown-pods=allow, strangers get through, and policies hold for
// known pods.
func TestUnknownPodsAllowed(t *testing.T) {
	w := newWorld(t, "allow", []string{"--unknown-pods=allow"}, wiring{bridge, false},
		wiring{ptp, false})
	w.shop()
	w.testStrangers(true)
	w.linkScopeControl(w.Nodes()[0])
	w.apply(noWeb)
	for _, node := range w.Nodes() {
		w.denied(tcp(on(node, "shop/client"), on(node, "shop/web"), 80),
			tcp(on(node, "stranger/never"), on(node, "shop/web"), 80))
		w.allowed(tcp(on(node, "stranger/never"), on(node, "shop/client"), 80))
	}
}
