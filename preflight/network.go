package preflight

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-net/sluice/overlay"
)

// foresee is what the agent would do and meet. An error is why the node can't take part.
func foresee(o Options) (overlay.Foresight, error) {
	own := cmp.Or(o.Node, "(this one)")
	return overlay.Foresee(overlay.Options{SysctlDir: o.SysctlDir}, own, o.Nodes, o.Config)
}

func checkNetwork(o Options) Result {
	if o.Config.IPv6Network.IsValid() {
		if _, err := os.Stat(filepath.Join(o.SysctlDir, "ipv6")); err != nil {
			return failed("boot without ipv6.disable=1, or turn EnableIPv6 off in net-conf.json",
				"IPv6 is on in net-conf.json, and the kernel has none: %v", err)
		}
	}
	f, err := foresee(o)
	return judgeNetwork(o, f, err)
}

// judgeNetwork says whether the node can take part in the pod network.
func judgeNetwork(o Options, f overlay.Foresight, err error) Result {
	switch {
	case err != nil && len(o.Nodes) == 0:
		return failed("give the node an address on a link with a default route, or, where that is "+
			"as it should be, ask an API server as well: --kubeconfig and --node-name", "%v", err)
	case err != nil:
		return failed("see the Node object's podCIDRs and addresses, and that net-conf.json "+
			"is of this cluster", "%v", err)
	case len(f.Overlapping) > 0:
		return warned("choose another Network in net-conf.json, or remove what another network "+
			"has left (ip link del cni0, say)", "addresses of the node are among the pods': %s",
			firstFew(f.Overlapping))
	case len(f.Skipped) > 0:
		var all []string
		for _, s := range f.Skipped {
			all = append(all, s.String())
		}
		return warned("see these nodes' podCIDRs and addresses", "not all would be reached: %s",
			firstFew(all))
	}
	where := f.Local.String()
	if f.Device != "" {
		where += " on " + f.Device
	}
	if len(o.Nodes) == 0 {
		return passed("the node is at %s; podCIDRs and other nodes weren't asked for", where)
	}
	var own string
	for _, n := range o.Nodes {
		if n.Name == o.Node {
			own = fmt.Sprint(n.PodCIDRs)
		}
	}
	return passed("the node is at %s with the podCIDRs %s, and reaches %d other nodes", where, own,
		len(f.Peers))
}

func checkMTU(o Options) Result {
	f, err := foresee(o)
	return judgeMTU(o.Config, f, err)
}

// judgeMTU says what pods get of what the underlay's links take.
func judgeMTU(c overlay.Config, f overlay.Foresight, err error) Result {
	links := strings.Join(f.Uplinks, ", ")
	switch {
	case err != nil:
		return warned("mend what the check network says", "it isn't known which link is used")
	case c.MTU > f.LinkMTU:
		return warned(fmt.Sprintf("set the MTU of %s, or Backend.MTU in net-conf.json, so that "+
			"both are the same on all nodes", links), "net-conf.json says %d bytes, and %s takes "+
			"%d: pods get %d", c.MTU, links, f.LinkMTU, f.MTU)
	}
	return passed("%s takes %d bytes, and pods get %d", links, f.LinkMTU, f.MTU)
}

// firstFew is some of many texts, and how many there are besides.
func firstFew(all []string) string {
	const few = 5
	if more := len(all) - few; more > 0 {
		return fmt.Sprintf("%s, and %d more", strings.Join(all[:few], ", "), more)
	}
	return strings.Join(all, ", ")
}
