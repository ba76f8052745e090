package enforce

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// previous is the commit whose agent stands for the release before this one.
const previous = "12ea6d4407af9e43de65b1f02f97375d24312ab5"

// TestUpgrade: agents of the version before, of this one, and of one whose base chains have another
// shape take over from each other under traffic. What is denied stays so, and what is allowed goes
// on.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	if os.Getenv("SLUICE_LONG") == "" {
		t.Skip("builds two more agents: set SLUICE_LONG=1")
	}
	root := repositoryRoot(t)
	older := buildAgent(t, archive(t, root, previous))
	reshaped := buildAgent(t, withOtherShape(t, archive(t, root, "HEAD")))
	l := newLab(t, labName(t, "upgrade"), lab.Options{Nodes: 2})
	w := newWorld(t, l, apart)
	w.policiesUnderFault()
	node := w.Node("node2")
	before, own := w.chains(node), w.agentLine(node)[0]
	stopDenied := w.watchDenied(stillDenied)
	stopTCP := w.watchFlow("dev/web", "dev/db", probe.TCP)
	stopUDP := w.watchFlow("dev/web", "dev/db", probe.UDP)
	for i, step := range []struct{ name, agent string }{
		{"back to the version before", older}, {"from the version before", ""},
		{"to another shape", reshaped},
		{"from another shape to the version before", older}, {"to another shape at once", reshaped},
		{"back from another shape", ""},
	} {
		w.replaceAgents(step.agent)
		w.denied(stillDenied...)
		w.allowed(stillAllowed...)
		w.editsHold(fmt.Sprint("step-", i), node)
		t.Log(step.name)
	}
	if now := w.chains(node); now != before {
		t.Errorf("in the end the ruleset is another:\n%s\nbefore:\n%s", now, before)
	}
	w.besideOlder(node, older, own)
	stopTCP()
	stopUDP()
	stopDenied()
}

// chains is the ruleset of a node in an order that doesn't depend on when each part was made.
func (w *world) chains(node *lab.Node) string {
	w.t.Helper()
	listing := strings.TrimSuffix(strings.TrimRight(w.ruleset(node), "\n"), "\n}")
	all := strings.Split(listing, "\n\n")
	slices.Sort(all)
	return strings.Join(all, "\n\n")
}

// editsHold has a policy changed, and a pod come and go.
func (w *world) editsHold(pod string, node *lab.Node) {
	w.t.Helper()
	w.setPolicies(map[string]string{
		"prod/web": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`})
	w.denied("prod/web > ops/probe tcp/80")
	w.deletePolicies("prod/web")
	w.allowed("prod/web > ops/probe tcp/80")
	target := fmt.Sprintf("tcp://%s", addrPort(w.addr("ops/probe", "", 4), 80))
	w.must(w.Client().Create(w.t.Context(), latePod(pod, node.Name(), target)))
	w.must(w.WaitReady(w.t.Context(), "ops/"+pod))
	w.must(w.deletePod("ops/" + pod))
}

// besideOlder: a new agent stands by beside one of the version before; one of that version, started
// second, ends and changes nothing.
func (w *world) besideOlder(node *lab.Node, older, own string) {
	w.t.Helper()
	before := w.ruleset(node)
	second := w.startProgram(node, append([]string{older}, w.agentLine(node)[1:]...))
	w.eventually("the older agent, which came second, to end", second.ended)
	w.same(node, before, "after an older agent came second")

	w.replaceAgents(older)
	line := w.agentLine(node)
	line[0] = own
	second = w.startProgram(node, line)
	w.eventually("the newer agent to stand by", second.says("takes no lock"))
	w.denied(stillDenied[:2]...)
	node.KillAgent()
	w.eventually("the newer agent to take over", second.says("Writing the first ruleset"))
	w.denied(stillDenied...)
	w.allowed(stillAllowed...)
	second.kill()
}

// replaceAgents ends the agents one after the other, and starts this program in their place; none
// is the lab's own.
func (w *world) replaceAgents(program string) {
	w.t.Helper()
	for _, node := range w.Nodes() {
		node.KillAgent()
		node.LaunchAgentBy()
		if program != "" {
			node.LaunchAgentBy("sh", "-c", `program=$0; shift; exec "$program" "$@"`, program)
		}
		w.must(node.StartAgent())
		w.must(node.WaitAgentReady(w.t.Context()))
	}
}

func repositoryRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skipf("this is no clone, which has the version before: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// archive takes a commit's files out of the repository.
func archive(t *testing.T, root, commit string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	git := exec.CommandContext(t.Context(), "git", "-C", root, "archive", "--format=tar", commit)
	files, err := git.Output()
	if err != nil {
		t.Skipf("the history doesn't go back to %s: %v", commit, err)
	}
	//nolint:gosec // the test's own folder
	tar := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir)
	tar.Stdin = bytes.NewReader(files)
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("unpacking %s: %v: %s", commit, err, out)
	}
	return dir
}

// withOtherShape gives the base chains of an agent another version.
func withOtherShape(t *testing.T, dir string) string {
	t.Helper()
	path, changed := otherShape(t, dir)
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// otherShape returns the file that has the version, and its text with another one.
func otherShape(t *testing.T, dir string) (path string, changed []byte) {
	t.Helper()
	const line = "\nconst shape = 1\n"
	path = filepath.Join(dir, "ruleset", "shape.go")
	text, err := os.ReadFile(path) //nolint:gosec // the test's own folder
	if err != nil || bytes.Count(text, []byte(line)) != 1 {
		t.Fatalf("%s doesn't have %q once: %v", path, line, err)
	}
	return path, bytes.Replace(text, []byte(line), []byte("\nconst shape = 99\n"), 1)
}

// TestOtherShape: what TestUpgrade changes is where it looks for it, also when that isn't run.
func TestOtherShape(t *testing.T) {
	t.Parallel()
	otherShape(t, repositoryRoot(t))
}

func buildAgent(t *testing.T, dir string) (program string) {
	t.Helper()
	program = filepath.Join(dir, "bin", "sluice-agent")
	//nolint:gosec // the test's own folder
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/sluice-agent")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent of %s: %v: %s", dir, err, out)
	}
	return program
}
