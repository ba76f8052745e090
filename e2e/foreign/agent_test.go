package foreign

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/plugins/pkg/netlinksafe"

	"github.com/sluice-net/sluice/e2e/lab"
)

// testAgentDown: without the agent, policies hold, strangers stay out, pods behind our plugin don't
// start, and others get nowhere. When it is back, all of them do.
func (w *world) testAgentDown() {
	t := w.t
	w.apply(noWeb)
	var open, shut, late []flow
	var behind, beside []string // pods that start late, on nodes with and without our plugin
	for _, node := range w.Nodes() {
		web, name := on(node, "shop/web"), on(node, "shop/late")
		open = append(open, tcp(on(node, "shop/client"), on(node, "shop/other"), 80))
		shut = append(shut, tcp(on(node, "shop/client"), web, 80),
			tcp(web, on(node, "shop/other"), 80))
		if _, list := runtime(t, node); len(list.Plugins) > 1 {
			behind = append(behind, name)
		} else {
			beside = append(beside, name)
			late = append(late, tcp(name, on(node, "shop/other"), 80),
				tcp(on(node, "shop/other"), name, 80), tcp(lab.Outside, name, 80))
		}
	}
	w.denied(shut...)
	for _, node := range w.Nodes() {
		node.KillAgent()
	}
	for _, name := range slices.Concat(behind, beside) {
		must(t, w.Client().Create(t.Context(),
			pod(name, strings.TrimPrefix(name, "shop/late-"), nil, nil)))
	}
	must(t, w.WaitReady(t.Context(), beside...))
	w.denied(late...)
	w.denied(shut...)
	w.allowed(open...)
	for _, name := range behind {
		w.eventually(name+" to be refused", func() bool {
			return strings.Contains(w.whyWaiting(name), "agent")
		})
		if _, err := w.Pod(name); err == nil {
			t.Errorf("%s runs without an agent", name)
		}
	}

	for _, node := range w.Nodes() {
		must(t, node.StartAgent())
	}
	must(t, w.WaitReady(t.Context(), behind...))
	w.allowed(late...)
	w.denied(shut...)
	w.allowed(open...)
	w.deletePods(append(behind, beside...)...)
	must(t, w.Delete(t.Context(), noWeb))
	w.allowed(shut...)
}

// whyWaiting returns why a pod didn't start when it was last tried.
func (w *world) whyWaiting(name string) string {
	p, err := w.object(name)
	if err != nil {
		return err.Error()
	}
	for _, status := range p.Status.ContainerStatuses {
		if status.State.Waiting != nil {
			return status.State.Waiting.Message
		}
	}
	return ""
}

// testCheck: CNI CHECK of the whole list succeeds, and where our plugin is in it, fails without the
// agent, and says so.
func (w *world) testCheck() {
	t := w.t
	for _, node := range w.Nodes() {
		network, list := runtime(t, node)
		config := w.attachment(network, on(node, "shop/web"))
		check := func() error {
			return node.Do(func() error {
				return network.CheckNetworkList(t.Context(), list, config)
			})
		}
		if err := check(); err != nil {
			t.Errorf("%s: CHECK: %v", node.Name(), err)
		}
		if len(list.Plugins) == 1 {
			continue
		}
		node.KillAgent()
		if err := check(); err == nil || !strings.Contains(err.Error(), "agent") {
			t.Errorf("%s: CHECK without the agent: %v", node.Name(), err)
		}
		must(t, node.StartAgent())
		must(t, node.WaitAgentReady(t.Context()))
		if err := check(); err != nil {
			t.Errorf("%s: CHECK after the agent was restarted: %v", node.Name(), err)
		}
	}
}

// attachment is the runtime's part of the ADD of a pod, from the CNI library's cache.
func (w *world) attachment(network *libcni.CNIConfig, name string) *libcni.RuntimeConf {
	w.t.Helper()
	all, err := network.GetCachedAttachments("")
	must(w.t, err)
	namespace, short := split(name)
	for _, a := range all {
		args := map[string]string{}
		for _, arg := range a.CniArgs {
			args[arg[0]] = arg[1]
		}
		if args["K8S_POD_NAMESPACE"] == namespace && args["K8S_POD_NAME"] == short {
			return &libcni.RuntimeConf{
				ContainerID: a.ContainerID, NetNS: a.NetNS, IfName: a.IfName, Args: a.CniArgs,
				CapabilityArgs: a.CapabilityArgs,
			}
		}
	}
	w.t.Fatalf("no attachment of %s in the cache", name)
	return nil
}

// testLeavesNothing: when all pods are gone, so is everything of theirs on the nodes.
func (w *world) testLeavesNothing() {
	t := w.t
	pods, err := w.Pods()
	must(t, err)
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	w.deletePods(names...)
	for _, node := range w.Nodes() {
		w.eventually("nothing to be left on "+node.Name(), func() bool {
			return len(w.remains(node)) == 0
		})
		if left := w.remains(node); len(left) > 0 {
			t.Errorf("%s: %v is left", node.Name(), left)
		}
	}
}

// remains lists what there is of pods on a node: records, leases, links, and entries of the
// dispatch maps.
func (w *world) remains(node *lab.Node) []string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	var left []string
	records, err := os.ReadDir(filepath.Join(filepath.Dir(node.Socket()), "attachments"))
	must(w.t, err)
	for _, r := range records {
		left = append(left, "record "+r.Name())
	}
	given, err := filepath.Glob(filepath.Join(leases(node), "*", "*"))
	must(w.t, err)
	for _, file := range given {
		if name := filepath.Base(file); name != "lock" &&
			!strings.HasPrefix(name, "last_reserved_ip") {
			left = append(left, "lease "+name)
		}
	}
	must(w.t, node.Do(func() error {
		links, err := netlinksafe.LinkList()
		for _, link := range links {
			if name := link.Attrs().Name; name != "lo" && name != "eth0" && name != bridgeName {
				left = append(left, "link "+name)
			}
		}
		return err
	}))
	maps, err := node.Nft(ctx, "list", "maps", "inet")
	must(w.t, err)
	for line := range strings.SplitSeq(maps, "\n") {
		if strings.Contains(line, "jump") || strings.Contains(line, ": accept") {
			left = append(left, strings.TrimSpace(line))
		}
	}
	return left
}
