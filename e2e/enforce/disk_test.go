package enforce

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-net/sluice/test/probe"
)

// agentStartsReadOnly: an agent that can write neither its state directory nor the CNI
// configuration enforces policy all the same, and says what it can't do. Pods wait, and start once
// it can.
func agentStartsReadOnly(w *world) {
	w.policiesUnderFault()
	node := w.Node("node2")
	before := w.ruleset(node)
	stop := w.watchDenied(stillDenied[:2])
	flow := w.watchFlow("prod/web", "ops/probe", probe.TCP)
	node.KillAgent()
	// In a mount namespace of its own, which goes with it.
	node.LaunchAgentBy("unshare", "--mount", "--propagation", "private", "sh", "-ec",
		`state=$1 conf=$2; shift 2
		for dir in "$state" "$conf"; do
			mount --bind "$dir" "$dir"; mount -o remount,bind,ro "$dir"
		done; exec "$@"`,
		"sh", filepath.Dir(node.Socket()), node.ConfDir())
	defer func() { // for the tests behind this one, also if it fails
		node.KillAgent()
		node.LaunchAgentBy()
		w.must(node.StartAgent())
	}()
	w.must(node.StartAgent())
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	w.must(node.WaitAgentReady(ctx))
	w.same(node, before, "with an agent that can't write")
	w.eventually("the agent to say so", func() bool {
		log := node.AgentLog()
		return strings.Contains(log, "The state directory can't be written") &&
			strings.Contains(log, "read-only file system")
	})
	w.deletePolicies("dev/web")
	w.allowed("dev/db > dev/web tcp/80")

	target := fmt.Sprintf("tcp://%s", addrPort(w.addr("ops/probe", "", 4), 80))
	w.must(w.Client().Create(w.t.Context(), latePod("read-only", node.Name(), target)))
	w.eventually("the pod to fail its start", func() bool {
		return w.startFailure("ops/read-only") != ""
	})
	flow()
	stop()
	node.KillAgent()
	node.LaunchAgentBy()
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.must(w.WaitReady(w.t.Context(), "ops/read-only"))
	w.must(w.deletePod("ops/read-only"))
	w.deletePolicies("dev/db")
	w.allowed(stillDenied...)
}
