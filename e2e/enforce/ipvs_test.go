package enforce

import (
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers/answers"
	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/enforcer"
)

// ipvsComesAndGoes: kube-proxy's link for IPVS makes the agent judge what is sent on to pods by way
// of output, also one that starts then, and policies hold with and without it. What IPVS itself
// does to packets is shown where there is a kernel that has it (ruleset: TestIPVS).
func ipvsComesAndGoes(w *world) {
	w.policiesUnderFault()
	node := w.Node(w.node["dev/db"])
	without := w.ruleset(node)
	flow := w.watchFlow("dev/web", "dev/db", "tcp")
	stop := w.watchDenied(stillDenied)
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: enforcer.IPVSLink}}
	w.must(node.Do(func() error { return netlink.LinkAdd(link) }))
	w.eventually("output to be judged", func() bool {
		return strings.Contains(w.ruleset(node), "ipvs-ingress")
	})
	w.verified(node)
	w.allowed(stillAllowed...)
	with := w.ruleset(node)
	node.KillAgent()
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.same(node, with, "when an agent has started beside IPVS")

	w.must(node.Do(func() error { return netlink.LinkDel(link) }))
	w.eventually("output not to be judged", func() bool { return w.ruleset(node) == without })
	w.verified(node)
	w.allowed(stillAllowed...)
	stop()
	flow()
	w.deletePolicies("dev/db", "dev/web")
	w.allowed(stillDenied...)
}

// verified asks the agent whether the kernel does what the policies mean.
func (w *world) verified(node *lab.Node) {
	w.t.Helper()
	var answer answers.VerifyAnswer
	w.must(cni.NewClient(node.Socket()).Get(w.t.Context(), cni.PathVerify, &answer))
	if answer.Error != "" || answer.Total > 0 || answer.Classes == 0 {
		w.t.Errorf("%s: verify: %+v", node.Name(), answer)
	}
}
