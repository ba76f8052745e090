package cnitest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// Plugin is what a runtime calls for a pod.
type Plugin interface {
	Add(*skel.CmdArgs) (types.Result, error)
	Del(*skel.CmdArgs) error
}

// Pod is a container's network namespace and what a runtime calls the plugin with for it.
type Pod struct {
	node   *Node
	plugin Plugin
	NetNS  ns.NetNS
	Args   *skel.CmdArgs
	Addrs  []netip.Addr // once it is on the network
}

// NewPod makes one of namespace dev, until the test ends.
func (n *Node) NewPod(plugin Plugin, container, pod string, config []byte) *Pod {
	n.t.Helper()
	netns := NewNetNS(n.t)
	return &Pod{node: n, plugin: plugin, NetNS: netns, Args: &skel.CmdArgs{
		ContainerID: container,
		Netns:       NSPath(netns),
		IfName:      "eth0",
		Args:        PodArgsText("dev", pod, container),
		StdinData:   config,
	}}
}

// PodArgsText is CNI_ARGS as kubelet's runtimes pass them.
func PodArgsText(namespace, pod, container string) string {
	return fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;"+
		"K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=uid-%s", namespace, pod, container, pod)
}

// NSPath names a namespace to anyone while it is open.
func NSPath(netns ns.NetNS) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd()) }

// Add puts the pod on the network.
func (p *Pod) Add() (result *types100.Result, err error) {
	p.node.InNode(func() error {
		added, addErr := p.plugin.Add(p.Args)
		if err = addErr; err == nil {
			result, err = types100.GetResult(added)
		}
		return nil
	})
	if err == nil {
		p.Addrs = nil
		for _, ip := range result.IPs {
			addr, _ := netip.AddrFromSlice(ip.Address.IP)
			p.Addrs = append(p.Addrs, addr.Unmap())
		}
	}
	return result, err
}

// MustAdd is Add that succeeds.
func (p *Pod) MustAdd() *types100.Result {
	p.node.t.Helper()
	result, err := p.Add()
	if err != nil {
		p.node.t.Fatalf("ADD of %s: %v", p.Args.ContainerID, err)
	}
	return result
}

// Del takes the pod off the network.
func (p *Pod) Del() (err error) { return p.Run(p.plugin.Del) }

// MustDel is Del that succeeds.
func (p *Pod) MustDel() {
	p.node.t.Helper()
	if err := p.Del(); err != nil {
		p.node.t.Fatalf("DEL of %s: %v", p.Args.ContainerID, err)
	}
}

// Run calls a verb as a runtime does.
func (p *Pod) Run(verb func(*skel.CmdArgs) error) (err error) {
	p.node.InNode(func() error {
		err = verb(p.Args)
		return nil
	})
	return err
}

// Named makes the pod's network namespace known by a path, as runtimes do, until forget.
func (p *Pod) Named() (forget func()) {
	p.node.t.Helper()
	path := EmptyFile(p.node.t)
	if err := unix.Mount(p.Args.Netns, path, "", unix.MS_BIND, ""); err != nil {
		p.node.t.Fatal(err)
	}
	p.Args.Netns = path
	unmount := func() {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if err != nil && !os.IsNotExist(err) && !errors.Is(err, unix.EINVAL) {
			p.node.t.Errorf("unmounting the pod's namespace: %v", err)
		}
	}
	p.node.t.Cleanup(unmount)
	return func() {
		unmount()
		if err := os.Remove(path); err != nil {
			p.node.t.Error(err)
		}
	}
}

// LoseLink does what happens to a pod's link when its network namespace goes.
func (p *Pod) LoseLink() { Lines(p.node.t, p.NetNS, "ip link del eth0") }

// EmptyFile is what is left of a namespace that was unmounted.
func EmptyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// NewPolicyPod is a pod that another plugin has wired; more is what the configuration has beside
// the mode.
func (n *Node) NewPolicyPod(plugin Plugin, container string, config []byte, more string) *Pod {
	n.t.Helper()
	p := n.NewPod(plugin, container, "pod-"+container, nil)
	Lines(n.t, p.NetNS,
		"ip link add eth0 type veth peer name other; ip addr add 10.1.0.5/24 dev eth0")
	start := strings.TrimSuffix(string(config), "}")
	p.Args.StdinData = []byte(start + `,"mode":"policy"` + more + "}")
	return p
}

// PrevResult is what a plugin before ours says that it gave: the link's addresses, and something
// else's.
func PrevResult(version string, addresses ...string) string {
	var ips []string
	for _, address := range addresses {
		family := ""
		if version == "0.4.0" {
			family = `"version":"4",`
			if strings.Contains(address, ":") {
				family = `"version":"6",`
			}
		}
		ips = append(ips, fmt.Sprintf(`{%s"interface":1,"address":%q,"gateway":"10.1.0.100"}`,
			family, address))
	}
	return fmt.Sprintf(`{"cniVersion":%q,"interfaces":[{"name":"cni0","mac":"02:00:00:00:00:01"},`+
		`{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/x"}],"ips":[%s],`+
		`"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.96.0.10"]}}`, version,
		strings.Join(ips, ","))
}
