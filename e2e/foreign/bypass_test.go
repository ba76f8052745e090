package foreign

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	eventsv1 "k8s.io/api/events/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/test/needkernel"
)

// bridgeSwitches have what is bridged seen by the rules for what is forwarded; a network namespace
// has its own.
var bridgeSwitches = []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"}

func switchBridges(t *testing.T, node *lab.Node, on bool) {
	t.Helper()
	value := map[bool]string{true: "1", false: "0"}[on]
	must(t, node.Do(func() error {
		for _, name := range bridgeSwitches {
			err := os.WriteFile(filepath.Join("/proc/sys/net/bridge", name), []byte(value), 0o600)
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestBypassIsFound: where bridged packets aren't seen, policies don't hold between pods of a node,
// and the agent says what is wrong, and what to type, in its log and by an Event on the node; also
// if it begins later. When it is right again, policies hold.
func TestBypassIsFound(t *testing.T) {
	w := newWorld(t, "bypass", nil, wiring{bridge, false}, wiring{bridge, true})
	w.shop()
	w.apply(noWeb)
	var near, far []flow
	for _, node := range w.Nodes() {
		web := on(node, "shop/web")
		near = append(near, tcp(on(node, "shop/client"), web, 80))
		far = append(far, tcp(lab.Outside, web, 80))
	}
	w.denied(slices.Concat(near, far)...)
	for _, node := range w.Nodes() {
		if w.reports(node) > 0 {
			t.Errorf("%s: the agent sees a bypass where none is:\n%s", node.Name(), node.AgentLog())
		}
		switchBridges(t, node, false)
	}
	w.allowed(near...) // which is what the warning is about
	w.denied(far...)
	for _, node := range w.Nodes() {
		w.eventually("the agent of "+node.Name()+" to find it", func() bool {
			return w.reports(node) == 1
		})
		node.KillAgent()
		must(t, node.StartAgent())
		w.eventually("the agent of "+node.Name()+" to find it at its start", func() bool {
			return w.reports(node) == 2
		})
		switchBridges(t, node, true)
	}
	w.denied(slices.Concat(near, far)...)
}

// TestBridgeModule: the same where the module that shows bridged packets to those rules isn't there
// yet, comes, and is unloaded under the agent.
func TestBridgeModule(t *testing.T) { // the module is the machine's: not parallel
	needkernel.Module(t, "br_netfilter")
	needkernel.Unload(t, "br_netfilter")
	w := newWorld(t, "bridgemodule", nil, wiring{bridge, false})
	w.shop()
	w.apply(noWeb)
	node := w.Nodes()[0]
	web := on(node, "shop/web")
	near, far := tcp(on(node, "shop/client"), web, 80), tcp(lab.Outside, web, 80)
	for round := range 2 {
		w.allowed(near)
		w.denied(far)
		w.eventually("the agent to name the module", func() bool {
			// In the Event of an agent it counts some minutes later.
			logged := strings.Count(node.AgentLog(), "run `modprobe br_netfilter`")
			return logged > 2*round && w.reports(node) > 0 // IPv4 and IPv6
		})
		needkernel.Module(t, "br_netfilter") // whose switches are on, as it comes
		w.denied(near, far)
		w.eventually("the agent to see that it is over", func() bool {
			return w.bypassesOver(node) > round
		})
		if out, err := exec.CommandContext(t.Context(), "rmmod", "br_netfilter").
			CombinedOutput(); err != nil {
			t.Fatalf("rmmod: %v: %s", err, out)
		}
	}
}

// reports counts how often the agents of a node have logged that it is bypassed, once there are as
// many Events, or more.
func (w *world) reports(node *lab.Node) int {
	w.t.Helper()
	logged := 0
	for line := range strings.SplitSeq(node.AgentLog(), "\n") {
		if strings.Contains(line, "PolicyBypassed") &&
			containsAll(line, append(bridgeSwitches, bridgeName, "sysctl -w")...) {
			logged++
		}
	}
	var events eventsv1.EventList
	must(w.t, w.Client().List(w.t.Context(), &events))
	said := 0
	for _, e := range events.Items {
		if e.Reason == "PolicyBypassed" && e.Regarding.Name == node.Name() &&
			containsAll(e.Note, bridgeSwitches...) {
			said++
			if e.Series != nil {
				said += int(e.Series.Count) - 1
			}
		}
	}
	return min(logged, said)
}

// bypassesOver counts how often the agents of a node have logged that it isn't bypassed any more.
func (w *world) bypassesOver(node *lab.Node) (n int) {
	for line := range strings.SplitSeq(node.AgentLog(), "\n") {
		if containsAll(line, "What was found about forwarded traffic is over", "PolicyBypassed") {
			n++
		}
	}
	return n
}

func containsAll(s string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(s, part) })
}

// ownProtocol is the routing protocol of Sluice's routes.
const ownProtocol = names.PodRoutes

// testHandsOff: the agent makes no network: no link, no route, no address translation, no CNI
// configuration, no subnet file.
func (w *world) testHandsOff() {
	t := w.t
	for _, node := range w.Nodes() {
		must(t, node.Do(func() error {
			links, err := netlinksafe.LinkList()
			if err != nil {
				return err
			}
			for _, link := range links {
				if name := link.Attrs().Name; strings.HasPrefix(name, "slu") {
					t.Errorf("%s has the link %s", node.Name(), name)
				}
			}
			routes, err := netlinksafe.RouteListFiltered(netlink.FAMILY_ALL,
				&netlink.Route{Protocol: ownProtocol}, netlink.RT_FILTER_PROTOCOL)
			for _, route := range routes {
				t.Errorf("%s has the route %s", node.Name(), route)
			}
			return err
		}))
		table, err := node.Nft(t.Context(), "list", "table", "inet", "sluice")
		must(t, err)
		for _, word := range []string{"type nat", "masquerade", "dnat", "notrack"} {
			if strings.Contains(table, word) {
				t.Errorf("%s: the table has %q:\n%s", node.Name(), word, table)
			}
		}
		files, err := os.ReadDir(node.ConfDir())
		must(t, err)
		for _, file := range files {
			if strings.Contains(file.Name(), "sluice") {
				t.Errorf("%s has the CNI configuration %s", node.Name(), file.Name())
			}
		}
		if _, err := os.Stat(node.SubnetFile()); err == nil {
			t.Errorf("%s has %s", node.Name(), node.SubnetFile())
		}
	}
}
