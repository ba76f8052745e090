package foreign

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/netlinksafe"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// networksCRD is the API of additional networks, as far as multus needs it.
const networksCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: network-attachment-definitions.k8s.cni.cncf.io}
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names: {plural: network-attachment-definitions, singular: network-attachment-definition, kind: NetworkAttachmentDefinition}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {config: {type: string}}}}
`

// Annotations of pods that multus reads and writes.
const (
	networksAnnotation = "k8s.v1.cni.cncf.io/networks"
	statusAnnotation   = "k8s.v1.cni.cncf.io/network-status"
)

// storageNetworks are the addresses of the additional network.
var storageNetworks = []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"),
	netip.MustParsePrefix("fd00:172:30::/64")}

const hostPort = 30080

// TestMultus: ours is the default network under multus, with an additional network by macvlan on
// the underlay. Policies govern the default one, the additional one is left alone, and all verbs do
// what they do without multus.
func TestMultus(t *testing.T) {
	w := newLab(t, "multus", lab.Options{Nodes: 2})
	w.apply(networksCRD)
	for _, node := range w.Nodes() {
		w.installMultus(node)
	}
	w.namespaces("shop")
	w.eventually("the API of networks", func() bool {
		return w.Apply(t.Context(), w.storage()) == nil
	})
	node1, node2 := w.Nodes()[0], w.Nodes()[1]
	both := map[string]string{networksAnnotation: "storage"}
	web := pod("shop/web", node1.Name(), map[string]string{"app": "web"}, both)
	web.Spec.Containers[0].Ports[0].HostPort = hostPort
	w.create(web, pod("shop/near", node1.Name(), nil, both),
		pod("shop/far", node2.Name(), nil, both), pod("shop/plain", node2.Name(), nil, nil))

	t.Run("wiring", func(t *testing.T) { inLab(t, w.Lab).testMultusWiring() })
	t.Run("policy", func(t *testing.T) { inLab(t, w.Lab).testMultusPolicy() })
	t.Run("verbs", func(t *testing.T) { inLab(t, w.Lab).testMultusVerbs() })

	w.deletePods("shop/web", "shop/near", "shop/far", "shop/plain")
	for _, node := range w.Nodes() {
		w.eventually("nothing to be left on "+node.Name(), func() bool {
			return len(w.multusRemains(node)) == 0
		})
		if left := w.multusRemains(node); len(left) > 0 {
			t.Errorf("%s: %q is left", node.Name(), left)
		}
	}
}

// installMultus puts multus before the configuration that the agent has left, which becomes that of
// its default network.
func (w *world) installMultus(node *lab.Node) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(node.ConfDir(), "05-sluice.conflist"))
	must(w.t, err)
	var ours object
	must(w.t, json.Unmarshal(text, &ours))
	install(w.t, node, object{"cniVersion": "1.1.0", "name": "multus", "plugins": []any{object{
		"type": "multus", "capabilities": object{"portMappings": true, "bandwidth": true},
		"delegates":  []any{ours},
		"kubeconfig": w.kubeconfigOn(node, "multus"), "cniDir": multusCache(node),
		"binDir": plugins,
	}}})
}

// multusCache is where multus keeps what it has done.
func multusCache(node *lab.Node) string { return filepath.Join(node.Dir(), "multus") }

// storage is the additional network. Its addresses are unique among nodes, because labs' nodes
// share files.
func (w *world) storage() string {
	w.t.Helper()
	var ranges []any
	for _, network := range storageNetworks {
		ranges = append(ranges, []any{object{"subnet": network.String()}})
	}
	config, err := json.Marshal(object{
		"cniVersion": "1.0.0", "name": "storage", "type": "macvlan", "master": "eth0",
		"mode": "bridge",
		"ipam": object{"type": "host-local", "dataDir": w.storageLeases(), "ranges": ranges},
	})
	must(w.t, err)
	return fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"namespace": "shop", "name": "storage"}, "spec": {"config": %q}}`, config)
}

func (w *world) storageLeases() string { return filepath.Join(w.Dir(), "storage") }

// storageAddr returns a pod's address on the additional network.
func (w *world) storageAddr(name string, is4 bool) netip.Addr {
	w.t.Helper()
	var found netip.Addr
	must(w.t, w.Do(name, func() error {
		link, err := netlinksafe.LinkByName("net1")
		if err != nil {
			return err
		}
		addrs, err := netlinksafe.AddrList(link, 0)
		for _, a := range addrs {
			addr, _ := netip.AddrFromSlice(a.IP)
			if addr = addr.Unmap(); addr.Is4() == is4 && !addr.IsLinkLocalUnicast() {
				found = addr
			}
		}
		return err
	}))
	if !slices.ContainsFunc(storageNetworks,
		func(p netip.Prefix) bool { return p.Contains(found) }) {
		w.t.Fatalf("%s has the address %v on net1 (is4 %v)", name, found, is4)
	}
	return found
}

// testMultusWiring: each pod has the networks that it asks for, and multus reports ours as the
// default one.
func (w *world) testMultusWiring() {
	t := w.t
	for name, want := range map[string]int{"shop/web": 2, "shop/far": 2, "shop/plain": 1} {
		p, err := w.object(name)
		must(t, err)
		var networks []struct {
			Name, Interface string
			IPs             []netip.Addr
			Default         bool
		}
		must(t, json.Unmarshal([]byte(p.Annotations[statusAnnotation]), &networks))
		if len(networks) != want || networks[0].Name != "sluice" ||
			networks[0].Interface != "eth0" || !networks[0].Default ||
			!slices.Equal(networks[0].IPs, w.addrs(name)) {
			t.Errorf("%s: multus says %+v, and the runtime %v", name, networks, w.addrs(name))
		}
		if want == 2 && (networks[1].Name != "shop/storage" || networks[1].Interface != "net1" ||
			networks[1].Default) {
			t.Errorf("%s: multus says %+v", name, networks)
		}
	}
}

// testMultusPolicy: a policy that denies everything ends what comes over the default network, and
// nothing of the additional one.
func (w *world) testMultusPolicy() {
	t := w.t
	sources := []string{"shop/near", "shop/far"}
	flows := []flow{tcp("shop/near", "shop/web", 80), tcp("shop/far", "shop/web", 80),
		tcp("shop/web", "shop/plain", 80), tcp("shop/web", lab.Outside, 80)}
	overStorage := func() {
		t.Helper()
		for _, from := range sources {
			for _, is4 := range []bool{true, false} {
				dst := netip.AddrPortFrom(w.storageAddr("shop/web", is4), 80)
				if r := w.Reach(t.Context(), from, probe.TCP, dst); !r.OK {
					t.Errorf("%s -> shop/web over the additional network (%s): %s", from, dst, r)
				}
			}
		}
	}
	w.allowed(flows...)
	w.allowed(tcp(lab.Outside, "node1", hostPort))
	overStorage()

	w.apply(noWeb)
	w.denied(flows...)
	w.denied(tcp(lab.Outside, "node1", hostPort))
	overStorage()

	must(t, w.Delete(t.Context(), noWeb))
	w.allowed(flows...)
	w.allowed(tcp(lab.Outside, "node1", hostPort))
}

// testMultusVerbs: STATUS, CHECK and GC get to our plugin by way of multus.
func (w *world) testMultusVerbs() {
	t := w.t
	node := w.Nodes()[0]
	network, list := runtime(t, node)
	config := w.attachment(network, "shop/web")
	must(t, node.Do(func() error { return network.GetStatusNetworkList(t.Context(), list) }))

	check := func() error {
		return node.Do(func() error { return network.CheckNetworkList(t.Context(), list, config) })
	}
	must(t, check())
	ip := func(args ...string) {
		t.Helper()
		must(t, w.Do("shop/web", func() error {
			out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip %v: %w: %s", args, err, out)
			}
			return nil
		}))
	}
	ip("route", "del", "default")
	if err := check(); err == nil || !strings.Contains(err.Error(), "0.0.0.0/0") {
		t.Errorf("CHECK of a pod without its default route: %v", err)
	}
	ip("route", "add", "default", "via", "169.254.1.1", "dev", "eth0", "onlink")
	must(t, check())

	all, err := network.GetCachedAttachments("")
	must(t, err)
	keep := &libcni.GCArgs{}
	for _, a := range all {
		keep.ValidAttachments = append(keep.ValidAttachments,
			types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName})
	}
	must(t, node.Do(func() error { return network.GCNetworkList(t.Context(), list, keep) }))
	must(t, check())
	w.allowed(tcp("shop/near", "shop/web", 80), tcp("shop/far", "shop/near", 80),
		tcp("shop/near", lab.Outside, 80))
}

// multusRemains lists what there is of pods on a node, and of the additional network.
func (w *world) multusRemains(node *lab.Node) []string {
	w.t.Helper()
	left := slices.DeleteFunc(w.remains(node), func(s string) bool { return s == "link sluice.1" })
	for kind, pattern := range map[string]string{
		"lease":                         filepath.Join(w.storageLeases(), "*", "*"),
		"cache of multus":               filepath.Join(multusCache(node), "*"),
		"result in it":                  filepath.Join(multusCache(node), "results", "*"),
		"result in the runtime's cache": filepath.Join(node.Dir(), "cni", "cache", "results", "*"),
	} {
		files, err := filepath.Glob(pattern)
		must(w.t, err)
		for _, file := range files {
			name := filepath.Base(file)
			if name != "results" && name != "lock" && !strings.HasPrefix(name, "last_reserved_ip") {
				left = append(left, kind+" "+name)
			}
		}
	}
	return left
}
