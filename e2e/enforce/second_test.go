package enforce

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	eventsv1 "k8s.io/api/events/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// secondAgent: it stands back as a whole and says so, takes over when the first ends, and stands
// back for it again.
func secondAgent(w *world) {
	w.policiesUnderFault()
	node := w.Node("node2")
	before, files := w.ruleset(node), w.stateFiles(node)
	stop := w.watchDenied(stillDenied[:2])
	flow := w.watchFlow("prod/web", "ops/probe", probe.TCP)
	first := node.AgentPID()
	second := w.startSecond(node)
	w.eventually("the second agent to stand by", second.says("another agent has locked"))
	w.eventually("an Event of it", func() bool { return w.hasEvent(node, "AnotherAgent") })
	w.same(node, before, "beside a second agent")
	if now := w.stateFiles(node); now != files {
		w.t.Errorf("the second agent changed the state directory: %s, before %s", now, files)
	}
	w.deletePolicies("dev/web")
	w.allowed("dev/db > dev/web tcp/80")
	if node.AgentPID() != first {
		w.t.Error("the first agent has ended")
	}
	if second.ended() {
		w.t.Fatalf("the second agent has ended: %s", second.log())
	}

	node.KillAgent()
	w.eventually("the second agent to take over", second.says("Writing the first ruleset"))
	w.setPolicies(map[string]string{
		"dev/web": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}`})
	w.denied("dev/db > dev/web tcp/80")
	target := fmt.Sprintf("tcp://%s", addrPort(w.addr("ops/probe", "", 4), 80))
	w.must(w.Client().Create(w.t.Context(), latePod("beside", node.Name(), target)))
	w.must(w.WaitReady(w.t.Context(), "ops/beside"))
	w.must(w.deletePod("ops/beside"))
	flow()
	stop()

	w.must(node.StartAgent())
	second.kill()
	w.must(node.WaitAgentReady(w.t.Context()))
	w.deletePolicies("dev/db", "dev/web")
	w.allowed(stillDenied...)
}

// process is an agent that the lab doesn't know of.
type process struct {
	cmd  *exec.Cmd
	file string
	done chan struct{}
}

// startSecond starts another agent on a node, with the arguments of the first. It dies with the
// test.
func (w *world) startSecond(node *lab.Node) *process {
	w.t.Helper()
	return w.startProgram(node, w.agentLine(node))
}

// agentLine is the program and the arguments of the agent that the lab has started on a node.
func (w *world) agentLine(node *lab.Node) []string {
	w.t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", node.AgentPID()))
	w.must(err)
	return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
}

func (w *world) startProgram(node *lab.Node, args []string) *process {
	w.t.Helper()
	//nolint:gosec // the lab's own program
	p := &process{cmd: exec.CommandContext(w.t.Context(), args[0], args[1:]...),
		file: filepath.Join(w.t.TempDir(), "log"), done: make(chan struct{})}
	out, err := os.Create(p.file)
	w.must(err)
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.must(node.Do(p.cmd.Start))
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	w.t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) log() string {
	text, err := os.ReadFile(p.file)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (p *process) says(what string) func() bool {
	return func() bool { return strings.Contains(p.log(), what) }
}

// stateFiles lists the node's state directory with what is in it, but for the heartbeat, which
// changes by itself, and for what the agent is just writing.
func (w *world) stateFiles(node *lab.Node) string {
	w.t.Helper()
	var all []string
	w.must(filepath.WalkDir(filepath.Dir(node.Socket()),
		func(path string, entry os.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() || entry.Name() == "heartbeat.json" ||
				strings.HasPrefix(entry.Name(), ".new-") {
				return err
			}
			text, err := os.ReadFile(path) //nolint:gosec // the lab's own
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			all = append(all, path+" "+string(text))
			return err
		}))
	return strings.Join(all, "\n")
}

// hasEvent reports whether there is an Event about a node with this reason.
func (w *world) hasEvent(node *lab.Node, reason string) bool {
	var list eventsv1.EventList
	w.must(w.Client().List(w.t.Context(), &list))
	for _, event := range list.Items {
		if event.Reason == reason && event.Regarding.Name == node.Name() {
			return true
		}
	}
	return false
}
