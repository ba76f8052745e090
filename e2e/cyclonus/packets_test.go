package cyclonus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/e2e/lab"
)

// TestPackets has cyclonus' interpreter run its cases on a lab of two nodes: a sample, or with
// SLUICE_LONG=1 all. Every cell of every step is tried over IPv4 and over IPv6, and must be as
// cyclonus expects.
//
// The control, that all cells connect without policies, is before each case and after the last; in
// the sample before each fourth.
//
// A case that names blocks of addresses is run once for each family, with that family's
// connections.
func TestPackets(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	l := newLab(t)
	both := newRun(t, l, ipv4, ipv6)
	only4, only6 := newRun(t, l, ipv4), newRun(t, l, ipv6)
	both.logPairs()

	cases4, cases6 := generate(only4.addressOf("z", "c")), generate(only6.addressOf("z", "c"))
	chosen, controlEvery := sample(cases4), 4
	if os.Getenv("SLUICE_LONG") != "" {
		chosen, controlEvery = chosen[:0], 1
		for i := range cases4 {
			chosen = append(chosen, i)
		}
	}
	start := time.Now()
	for n, i := range chosen {
		if n%controlEvery == 0 {
			both.control()
		}
		if namesBlocks(cases4[i]) {
			only4.execute(i, cases4[i])
			only6.execute(i, cases6[i])
		} else {
			both.execute(i, cases4[i])
		}
	}
	both.control()
	total := both.count.add(only4.count).add(only6.count)
	t.Logf("proof: %d cases of %d: %d steps, %d cells allowed, %d denied, %d rounds of probes "+
		"more than steps, in %v",
		len(chosen), len(cases4), total.steps, total.allowed, total.denied, total.again,
		time.Since(start).Round(time.Second))
}

func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.Up(t.Context(),
		lab.Options{Name: fmt.Sprintf("cyclonus-%d", os.Getpid()), Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, l)
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// dump logs what the agents said, and what is in the kernel.
func dump(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // the test's has ended
	defer cancel()
	for _, node := range l.Nodes() {
		log, err := os.ReadFile(filepath.Join(node.Dir(), "agent.log"))
		t.Logf("%s: the agent's log (%v):\n%s", node.Name(), err, log)
		listing, err := node.Nft(ctx, "list", "table", "inet", "sluice")
		t.Logf("%s (%v):\n%s", node.Name(), err, listing)
	}
}

// run is cyclonus' interpreter on a lab, for connections over some families.
type run struct {
	t           *testing.T
	cluster     *labCluster
	resources   *probe.Resources
	interpreter *connectivity.Interpreter
	count       count
}

// count is over a pod's cells with others, each as often as there are families.
type count struct{ steps, allowed, denied, again int }

func (c count) add(o count) count {
	return count{c.steps + o.steps, c.allowed + o.allowed, c.denied + o.denied, c.again + o.again}
}

// newRun makes the pods, unless an earlier one has.
func newRun(t *testing.T, l *lab.Lab, families ...family) *run {
	t.Helper()
	c := newLabCluster(t.Context(), l, families...)
	resources, err := probe.NewDefaultResources(c, namespaces, podNames, ports, protocols, nil,
		int(patience.Seconds()), true, "")
	if err != nil {
		t.Fatal(err)
	}
	config := &connectivity.InterpreterConfig{
		ResetClusterBeforeTestCase: true, VerifyClusterStateBeforeTestCase: true,
		KubeProbeRetries: retries, BatchJobs: true, IgnoreLoopback: true, FailFast: true,
	}
	return &run{t: t, cluster: c, resources: resources,
		interpreter: connectivity.NewInterpreter(c, resources, config)}
}

func (r *run) addressOf(namespace, name string) string {
	r.t.Helper()
	pod, err := r.resources.GetPod(namespace, name)
	if err != nil {
		r.t.Fatal(err)
	}
	return pod.IP
}

// logPairs says how many pairs of pods are on one node and on two, and demands both.
func (r *run) logPairs() {
	r.t.Helper()
	pods, err := r.cluster.lab.Pods()
	if err != nil {
		r.t.Fatal(err)
	}
	var same, across int
	for _, a := range pods {
		for _, b := range pods {
			switch {
			case a.Name == b.Name:
			case a.Node == b.Node:
				same++
			default:
				across++
			}
		}
	}
	r.t.Logf("%d pods: %d pairs on one node, %d across nodes", len(pods), same, across)
	if same == 0 || across == 0 {
		r.t.Fatal("expected pairs of both kinds")
	}
}

// control demands that without policies everything connects.
func (r *run) control() {
	r.t.Helper()
	denied := r.count.denied
	r.execute(-1,
		generator.NewSingleStepTestCase("no policies", generator.StringSet{}, everything()))
	if r.count.denied != denied {
		r.t.Fatal("cyclonus expects denied cells where there are no policies")
	}
}

// execute runs one case, and fails the test at once if a cell isn't as expected.
func (r *run) execute(number int, c *generator.TestCase) {
	r.t.Helper()
	result := r.interpreter.ExecuteTestCase(c)
	if result.Err != nil {
		r.t.Fatalf("case %d, %q: %v", number, c.Description, result.Err)
	}
	for i, step := range result.Steps {
		r.check(fmt.Sprintf("case %d, %q, step %d", number, c.Description, i+1), step)
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// check counts a step's cells, and reports those that aren't as expected.
func (r *run) check(name string, step *connectivity.StepResult) {
	r.t.Helper()
	r.count.steps++
	r.count.again += len(step.KubeProbes) - 1
	comparison := step.LastComparison()
	for _, pair := range comparison.Wrapped.Keys() {
		if pair.From == pair.To {
			continue
		}
		item := comparison.Get(pair.From, pair.To)
		for cell, expected := range item.Simulated.JobResults {
			got := probe.ConnectivityUnknown
			if result := item.Kube.JobResults[cell]; result != nil {
				got = result.Combined
			}
			switch {
			case got != expected.Combined:
				r.t.Errorf("%s: %s to %s %s: expected %s, got %s: %s",
					name, pair.From, pair.To, cell, expected.Combined, got,
					r.cluster.seen[expected.Job.Key()])
			case got == probe.ConnectivityAllowed:
				r.count.allowed += len(r.cluster.families)
			default:
				r.count.denied += len(r.cluster.families)
			}
		}
	}
	if r.t.Failed() {
		text, err := yaml.Marshal(step.KubePolicies)
		r.t.Logf("with these policies (%v):\n%s", err, text)
	}
}
