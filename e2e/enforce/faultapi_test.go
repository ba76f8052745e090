package enforce

import "os/exec"

// connectionIsDead: packets of the agent's connection to the API server get
// lost both ways, and nobody ends it. It is noticed by HTTP/2's pings, with
// other times than client-go's, which are 30 s and 15 s.
func connectionIsDead(w *world) {
	const flow = "dev/web > dev/db tcp/80"
	env, err := exec.LookPath("env")
	w.must(err)
	node := w.Node(w.node["dev/db"])
	node.LaunchAgentBy(env, "HTTP2_READ_IDLE_TIMEOUT_SECONDS=2", "HTTP2_PING_TIMEOUT_SECONDS=1")
	defer node.LaunchAgentBy()
	node.KillAgent()
	w.must(node.StartAgent())
	w.must(node.WaitAgentReady(w.t.Context()))
	w.allowed(flow)
	node.HoldAPI()
	w.setPolicies(map[string]string{"dev/db": `{podSelector: {matchLabels: {app: db}}}`})
	w.denied(flow)
	w.eventually("the agent's log to tell", func() bool {
		return contains(node.AgentLog(), "The API server isn't heard", "The API server is heard again")
	})
	w.deletePolicies("dev/db")
	w.allowed(flow)
}
