package network

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
)

// dropForward does to a node what Docker does at its start.
const dropForward = `add table ip filter
add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
add table ip6 filter
add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }`

// What others do on a node, and what a node lacks, is reported.
func TestNodeProblems(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "problems", lab.Options{})
	w.part("others drop what is forwarded", forwardBlocked)
	w.part("another CNI's configuration comes first", otherCNIFirst)
	w.part("a node has no pod CIDR", noPodCIDR)
}

func forwardBlocked(w *world) {
	w.run("node1", "default/a", "default/b")
	w.run("node2", "default/c")
	w.talk("default/a", "default/b")
	w.talk("default/a", "default/c")
	w.nft("node1", dropForward)
	for _, family := range []string{"ip", "ip6"} {
		w.t.Log(w.event("node1", "ForwardingBlocked",
			"table "+family+" filter, chain FORWARD (policy drop)"))
	}
	for _, to := range []string{"default/b", "default/c"} {
		if n := w.working("default/a", to); n != 0 {
			w.t.Errorf("pods connect to %s over %d families in spite of others' drop: nobody's "+
				"drop may be overruled", to, n)
		}
	}
	if notes := w.events("node2", "ForwardingBlocked"); len(notes) > 0 {
		w.t.Errorf("node2, where nobody drops, complains of %v", notes)
	}
	w.nft("node1", "delete table ip filter\ndelete table ip6 filter")
	w.talk("default/a", "default/b")
	w.talk("default/a", "default/c")
}

func (w *world) nft(node, commands string) {
	w.t.Helper()
	_, err := w.Nft(w.t.Context(), node, commands)
	must(w.t, err)
}

func otherCNIFirst(w *world) {
	if notes := w.events("node1", "OtherCNIFirst"); len(notes) > 0 {
		w.t.Errorf("there are warnings before there is a cause: %v", notes)
	}
	file := filepath.Join(w.Node("node1").ConfDir(), "04-another.conflist")
	const conflist = `{"cniVersion": "1.0.0", "name": "another", "plugins": [{"type": "another"}]}`
	must(w.t, os.WriteFile(file, []byte(conflist), 0o600))
	w.t.Log(w.event("node1", "OtherCNIFirst", filepath.Base(file)))
	must(w.t, os.Remove(file))
}

// noPodCIDR: a node without a range for pods waits for one, and says so.
func noPodCIDR(w *world) {
	node := w.Node("node2")
	cidrs := node.PodCIDRs()
	must(w.t, node.SetPodCIDRs(w.t.Context()))
	must(w.t, node.Reboot()) // so that it never had one, as far as it knows
	w.t.Log(w.event("node2", "NetworkNotReady", "no pod CIDR"))
	pid := node.AgentPID()
	w.eventually(settleTime, "sluice_network_ready to be there", func() bool {
		return w.metric("node2", "sluice_network_ready") == 0
	})
	ready, err := w.ask("node2", "/readyz")
	must(w.t, err)
	w.t.Logf("readyz of node2: %s", ready)
	if _, err := os.Stat(node.SubnetFile()); err == nil {
		w.t.Error("there is a subnet file, without a subnet")
	}
	must(w.t, node.SetPodCIDRs(w.t.Context(), cidrs...))
	ctx, cancel := context.WithTimeout(w.t.Context(), settleTime)
	defer cancel()
	must(w.t, node.WaitReady(ctx))
	if now := node.AgentPID(); now != pid || now == 0 {
		w.t.Errorf("the agent's process is %d, it was %d: it didn't just wait", now, pid)
	}
	if n := w.metric("node2", "sluice_network_ready"); n != 1 {
		w.t.Errorf("sluice_network_ready is %v, want 1", n)
	}
	w.eventually(settleTime, "the subnet file to be there", func() bool {
		_, err := os.Stat(node.SubnetFile())
		return err == nil
	})
	w.run("node2", "default/d")
	w.talk("default/a", "default/d")
}

// With --forward-accept a rule in others' chains lets the pod network through, and comes back.
func TestForwardAccept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "accept", lab.Options{Nodes: 1, AgentArgs: []string{"--forward-accept"}})
	w.run("node1", "default/a", "default/b")
	w.talk("default/a", "default/b")
	passes := func(w *world, what string) {
		w.t.Helper()
		took := w.eventually(settleTime, "pods to talk "+what, func() bool {
			return w.working("default/a", "default/b") == 2
		})
		w.t.Logf("pods talked again after %s", took)
		w.talk("default/a", "default/b")
	}
	// halted makes a fault that the agent doesn't see before pods were cut off by it.
	halted := func(w *world, commands string) {
		w.t.Helper()
		resume := w.haltAgent("node1")
		defer resume()
		w.nft("node1", commands)
		if n := w.working("default/a", "default/b"); n != 0 {
			w.t.Errorf("pods connect over %d families, want none: what follows proves nothing", n)
		}
	}
	w.part("policy drop in FORWARD", func(w *world) {
		halted(w, dropForward)
		passes(w, "past others' drop")
	})
	w.part("the rule is flushed", func(w *world) {
		halted(w, "flush chain ip filter FORWARD\nflush chain ip6 filter FORWARD")
		passes(w, "after a flush")
	})
	w.part("the tables are replaced", func(w *world) {
		halted(w, "delete table ip filter\ndelete table ip6 filter\n"+dropForward)
		passes(w, "after the tables were replaced")
	})
	w.part("Docker's own chain is used", func(w *world) {
		halted(w, `delete table ip filter
delete table ip6 filter
`+dropForward+`
add chain ip filter DOCKER-USER
add rule ip filter FORWARD jump DOCKER-USER
add chain ip6 filter DOCKER-USER
add rule ip6 filter FORWARD jump DOCKER-USER`)
		passes(w, "by way of DOCKER-USER")
	})
}
