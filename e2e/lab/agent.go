package lab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// agentUser is who the agent is to the API server: the service account that it would have in a
// cluster.
const agentUser = "system:serviceaccount:sluice-system:sluice-agent"

// agentHTTPAddress is where the agent serves its health, in its node's namespace.
const agentHTTPAddress = "127.0.0.1:9808"

// AgentLog returns what the node's agents have logged, or the end of it, for the message of a test
// that fails.
func (n *Node) AgentLog() string {
	const most = 64 << 10
	text, err := os.ReadFile(n.agentLog())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

func (n *Node) agentLog() string { return filepath.Join(n.dir, "agent.log") }

func (n *Node) agentArgs() []string {
	args := []string{
		"--node-name=" + n.name,
		"--kubeconfig=" + n.Kubeconfig(),
		"--state-dir=" + n.stateDir(),
		"--socket=" + n.Socket(),
		"--http-address=" + agentHTTPAddress,
		"--net-conf=" + n.lab.NetConf(),
		"--cni-conf-dir=" + n.ConfDir(),
		"--subnet-file=" + n.SubnetFile(),
		"--run-dir=", // NetworkManager and the like aren't there
	}
	if n.lab.options.NoAgent {
		args = append(args, "--policy-only")
	}
	return append(args, n.lab.options.AgentArgs...)
}

// LaunchAgentBy has the node's agents started by way of another program, from the next start on:
// that is given the agent's path and arguments behind its own, and becomes it. Without a program,
// agents are started plainly again.
func (n *Node) LaunchAgentBy(launcher ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.launcher = launcher
}

// StartAgent starts the node's agent unless it runs. Its output goes to agent.log in Dir.
func (n *Node) StartAgent() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil && n.agent.Running() {
		return nil
	}
	command := slices.Concat(n.launcher, []string{n.lab.programs.Agent}, n.agentArgs())
	agent, err := n.lab.spawner.Start(process.Program{
		Name: "sluice-agent of " + n.name,
		Path: command[0],
		Args: command[1:],
		In:   n.space(),
		Log:  n.agentLog(),
	})
	if err != nil {
		return err
	}
	n.agent = agent
	return nil
}

// KillAgent kills the node's agent (SIGKILL) and returns when it is gone. It stays so until
// StartAgent.
func (n *Node) KillAgent() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil {
		n.agent.Kill()
	}
}

// AgentPID returns the number of the agent's process, or 0 if none runs.
func (n *Node) AgentPID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent == nil || !n.agent.Running() {
		return 0
	}
	return n.agent.PID()
}

// WaitAgentReady waits until the agent says that it is ready: everything is known and applied. An
// agent that has ended is an error.
func (n *Node) WaitAgentReady(ctx context.Context) error {
	n.mu.Lock()
	agent := n.agent
	n.mu.Unlock()
	if agent == nil {
		return fmt.Errorf("node %s: the agent was never started", n.name)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: namespace.Dialer(n.space()),
		DisableKeepAlives: true}}
	return wait.Until(ctx, wait.ReadyTimeout, "the agent of "+n.name+" being ready",
		func() (bool, error) {
			if !agent.Running() {
				return false, agent.Failure()
			}
			return wait.AnswersOK(ctx, client, "http://"+agentHTTPAddress+"/readyz"), nil
		})
}
