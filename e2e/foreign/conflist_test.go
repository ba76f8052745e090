package foreign

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/sluice-net/sluice/e2e/lab"
)

// The other project's plugins.
const (
	bridge = "bridge"
	ptp    = "ptp"
)

// bridgeName is the device of the plugin of that name.
const bridgeName = "cni0"

// wiring is how the pods of a node get their network.
type wiring struct {
	plugin  string // bridge or ptp
	chained bool   // our plugin comes after it
}

func (w wiring) String() string {
	if w.chained {
		return w.plugin + " and sluice"
	}
	return w.plugin
}

// object is JSON's.
type object = map[string]any

// conflist is the network configuration of a node. Who asks gets the addresses that it wants, and
// on a bridge the MAC.
func (w wiring) conflist(node *lab.Node) object {
	plugin := object{
		"type":         w.plugin,
		"capabilities": object{"ips": true, "mac": w.plugin == bridge},
		"ipam":         hostLocal(node),
	}
	if w.plugin == bridge {
		plugin["bridge"], plugin["isGateway"], plugin["hairpinMode"] = bridgeName, true, true
	}
	list := []any{plugin}
	if w.chained {
		list = append(list, object{
			"type": "sluice", "mode": "policy", "socket": node.Socket(),
			"stateDir": filepath.Dir(node.Socket()),
		})
	}
	return object{"cniVersion": "1.1.0", "name": "foreign", "plugins": list}
}

// hostLocal has addresses taken from the node's ranges, and default routes.
func hostLocal(node *lab.Node) object {
	var ranges, routes []any
	for _, cidr := range node.PodCIDRs() {
		ranges = append(ranges, []any{object{"subnet": cidr.String()}})
		anywhere := "0.0.0.0/0"
		if cidr.Addr().Is6() {
			anywhere = "::/0"
		}
		routes = append(routes, object{"dst": anywhere})
	}
	return object{"type": "host-local", "dataDir": leases(node), "ranges": ranges, "routes": routes}
}

// leases is where host-local keeps the addresses that it has given.
func leases(node *lab.Node) string { return filepath.Join(node.Dir(), "host-local") }

// install makes a configuration the node's: runtimes take the first by name.
func install(t *testing.T, node *lab.Node, conflist object) {
	t.Helper()
	text, err := json.MarshalIndent(conflist, "", "  ")
	must(t, err)
	must(t, os.WriteFile(configuration(node), text, 0o600))
}

func configuration(node *lab.Node) string {
	return filepath.Join(node.ConfDir(), "00-foreign.conflist")
}

// runtime is the CNI library as the node's runtime uses it, with the same cache, and the network.
func runtime(t *testing.T, node *lab.Node) (*libcni.CNIConfig, *libcni.NetworkConfigList) {
	t.Helper()
	list, err := libcni.ConfListFromFile(configuration(node))
	must(t, err)
	return libcni.NewCNIConfigWithCacheDir([]string{plugins},
		filepath.Join(node.Dir(), "cni", "cache"), nil), list
}
