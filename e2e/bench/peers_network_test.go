package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/testnet"
)

// BenchmarkPeersNetwork has flannel in the same rounds as Sluice. Flannel's pods have IPv4 alone
// and are on a bridge, where its CNI plugin puts them, and no policy is enforced there.
func BenchmarkPeersNetwork(b *testing.B) {
	f := flannel{program: peerAgents(b).Flannel, plugins: buildPlugins(b),
		lab: newLab(b, "peers", lab.Options{Nodes: 1, NoAgent: true})}
	ways := []way{
		underlay(b, "underlay"),
		vxlanTracked(b, "vxlan-by-hand-tracked"),
		f.way(b, "flannel-vxlan", vxlan),
		sluice(vxlan, false)(b, "sluice-vxlan-no-policy"),
		sluice(vxlan, true)(b, "sluice-vxlan"),
		f.way(b, "flannel-host-gw", hostGW),
		sluice(hostGW, true)(b, "sluice-host-gw"),
	}
	for _, c := range []struct {
		name string
		load load
	}{
		// first, as its flow is to have no answer in connection tracking
		{"UDPOneWay", udpOneWay},
		{"TCPStream", tcpStream}, {"UDPStream", udpStream}, {"UDPWork", udpWork},
		{"TCPRequest", tcpRequest}, {"UDPRequest", udpRequest}, {"TCPConnect", tcpConnect},
	} {
		b.Run(c.name, func(b *testing.B) {
			compare(b, c.load, ways, map[string]string{"of-underlay": "underlay",
				"of-flannel-vxlan": "flannel-vxlan", "of-flannel-host-gw": "flannel-host-gw"})
		})
	}
}

// flannel is that project's agent, with the plugins that its own hands pods on to.
type flannel struct {
	lab              *lab.Lab
	program, plugins string
}

// flannelNetwork is a net-conf.json, but for the backend.
const flannelNetwork = `{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": %s}`

// flannelDelegate is what flannel's CNI plugin asks the bridge plugin for, by default.
const flannelDelegate = `{"type": "bridge", "bridge": "cni0", "mtu": %d, "hairpinMode": true,
	"isGateway": true, "isDefaultGateway": true, "ipMasq": false,
	"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]]}}`

// way is the way through flannel's pod network.
func (f flannel) way(b *testing.B, name, backend string) way {
	b.Helper()
	c := newCable(b)
	var boxes [2]sandbox
	for i, node := range c {
		object := nodeObject(i)
		object.Name = fmt.Sprintf("%s-%d", name, i+1)
		object.Spec.PodCIDR = object.Spec.PodCIDRs[0]
		object.Annotations = someAnnotation
		must(b, f.lab.Client().Create(b.Context(), object))
		mtu, _ := f.start(b, node, object.Name, fmt.Sprintf(flannelNetwork, backend))
		delegate := fmt.Sprintf(flannelDelegate, mtu, inMemory(b), podCIDR4(i))
		boxes[i] = newSandbox(b, i+1)
		b.Cleanup(func() { boxes[i].close(b) })
		must(b, newRuntimeOn(b, node, name, f.plugins, delegate).add(b.Context(), boxes[i]))
	}
	w := way{name: name, client: boxes[0], server: boxes[1], from: podAddr(podCIDR4(0)),
		to: podAddr(podCIDR4(1))}
	await(b, "network of flannel", func() error {
		return w.client.Do(func() error {
			return probe.Reach(probe.ICMP, netip.AddrPortFrom(w.to, 0)).Err
		})
	})
	return w
}

// someAnnotation is on every node that a kubelet has; flannel takes it for granted that there is
// one.
var someAnnotation = map[string]string{
	"volumes.kubernetes.io/controller-managed-attach-detach": "true",
}

// start has flannel run on a node, which the API server knows, and returns the MTU of pods when it
// is ready.
func (f flannel) start(b *testing.B, node *testnet.Node, name, conf string) (mtu int, d *daemon) {
	b.Helper()
	dir := b.TempDir()
	confFile, subnetFile := filepath.Join(dir, "net-conf.json"), filepath.Join(dir, "subnet.env")
	must(b, os.WriteFile(confFile, []byte(conf), 0o600))
	d = startDaemon(b, f.lab, node, f.program, []string{"NODE_NAME=" + name},
		"-kubeconfig-file="+f.lab.Kubeconfig(), "-net-config-path="+confFile,
		"-subnet-file="+subnetFile, "-iface=eth0")
	await(b, "ready flannel", func() error {
		text, err := os.ReadFile(subnetFile)
		if err != nil {
			return errors.Join(d.running(), err)
		}
		_, rest, _ := strings.Cut(string(text), "FLANNEL_MTU=")
		word, _, _ := strings.Cut(rest, "\n")
		mtu, err = strconv.Atoi(word)
		return err
	})
	return mtu, d
}
