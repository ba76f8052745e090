package bench

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
)

const (
	scalePatience = 15 * time.Minute // for all objects, on a slow machine
	churnFor      = 30 * time.Second
	localPods     = podsPerNode
)

// BenchmarkScale is one real agent in a population of objects: its memory, grown into them and
// restarted into them; how long the start takes; and what a steady churn costs: CPU, how long
// batches of changes that change the ruleset take from the event to the kernel, and how late the
// last change is there.
//
// SLUICE_SCALE is the number of nodes, with 30 pods each (make bench-scale).
func BenchmarkScale(b *testing.B) {
	text := os.Getenv("SLUICE_SCALE")
	if text == "" {
		b.Skip("only by make bench-scale: it takes many minutes, and gigabytes of memory")
	}
	nodes, err := strconv.Atoi(text)
	if err != nil || nodes < 2 || nodes > 19_000 {
		b.Fatalf("SLUICE_SCALE=%q: expected a number of nodes from 2 to 19000", text)
	}
	s := newScale(b, population{nodes})
	s.populate()
	s.report("grown", s.memory())
	s.reportHeap("grown")
	s.restart()
	c := &podChurn{scale: s, states: map[int]podState{}}
	for _, rate := range []int{100, 1000} {
		s.churn(fmt.Sprintf("pod-changes=%d", rate), rate, c.change)
	}
	edits := 0
	s.churn("policy-edits=10", 10, func(n int) error {
		var policies []client.Object
		for range n {
			edits++
			policies = append(policies, s.policy(edits*31%s.policies(), edits))
		}
		return s.lab.Store(b.Context(), slices.Values(policies))
	})
	s.report("afterwards", s.memory())
	s.reportHeap("afterwards")
	s.worstCases()
}

// scale is a lab of one node in a population.
type scale struct {
	population
	b       *testing.B
	lab     *lab.Lab
	real    *lab.Node
	metrics metrics
	marks   int // see mark
}

func newScale(b *testing.B, p population) *scale {
	b.Helper()
	l := newLab(b, "scale", lab.Options{Nodes: 1, AgentArgs: []string{"--profiling"}})
	must(b, l.SetNetConf(largeNetConf))
	node := l.Nodes()[0]
	return &scale{population: p, b: b, lab: l, real: node, metrics: newMetrics(node)}
}

func (s *scale) sayf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "==> "+format+"\n", args...)
}

func (s *scale) report(what string, figures map[string]float64) {
	s.b.Helper()
	s.sayf("%s: %v", what, figures)
	report(s.b, fmt.Sprintf("nodes=%d,pods=%d,policies=%d/%s", s.nodes, s.pods(), s.policies(),
		what), figures)
}

func (s *scale) memory() map[string]float64 { return memoryOf(s.b, s.real.AgentPID()) }

// populate makes the pods of the real node, which have policies, and then all others.
func (s *scale) populate() {
	s.b.Helper()
	ctx := s.b.Context()
	must(s.b, s.lab.Store(ctx, numbered(s.namespaces(), s.namespace)))
	var names []string
	for i := range localPods {
		namespace := i % s.namespaces()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: spaceName(namespace),
			Name: fmt.Sprintf("local-%d", i), Labels: podLabels(namespace, 0, i)},
			Spec: corev1.PodSpec{NodeName: s.real.Name(),
				Containers: []corev1.Container{{Name: "main", Image: "none"}}}}
		must(s.b, s.lab.Client().Create(ctx, pod))
		names = append(names, pod.Namespace+"/"+pod.Name)
	}
	must(s.b, s.lab.WaitReady(ctx, names...))
	s.report("alone", s.memory())

	start := time.Now()
	must(s.b, s.lab.Store(ctx, numbered(s.nodes, s.node)))
	must(s.b, s.lab.Store(ctx, numbered(s.policies(),
		func(i int) client.Object { return s.policy(i, 0) })))
	must(s.b, s.lab.Store(ctx, numbered(s.pods(),
		func(i int) client.Object { return s.pod(i, podState{}) })))
	s.sayf("%d nodes, %d pods and %d policies are stored after %s", s.nodes, s.pods(),
		s.policies(), time.Since(start).Round(time.Second))
	s.awaitAll()
	s.sayf("the agent has them all after %s", time.Since(start).Round(time.Second))
}

// awaitAll waits until the agent knows everything.
func (s *scale) awaitAll() {
	s.b.Helper()
	s.within("agent that knows everything", func() error {
		text, err := s.metrics.text()
		if err != nil {
			return err
		}
		return errors.Join(
			text.atLeast("sluice_network_peers ", float64(s.nodes)),
			text.atLeast("sluice_pods ", float64(s.pods())))
	})
	s.mark()
}

// within polls rarely, as asking costs the agent something.
func (s *scale) within(what string, check func() error) {
	s.b.Helper()
	poll(s.b, 200*time.Millisecond, scalePatience, what, check)
}

// mark makes a change of a pod, behind all others', and waits until the kernel has it: the address
// of a pod that a policy of a local pod allows.
func (s *scale) mark() {
	s.b.Helper()
	pod := s.pod(1, podState{})
	s.marks++
	pod.Name, pod.UID = "mark", uidOf(fmt.Sprintf("mark/%d", s.marks))
	address := fmt.Sprintf("10.128.0.%d", 252+s.marks%3) // which no pod of the population has
	pod.Status.PodIP, pod.Status.PodIPs = address, []corev1.PodIP{{IP: address}}
	must(s.b, s.lab.Store(s.b.Context(), slices.Values([]client.Object{pod})))
	s.within("mark in the kernel", func() error {
		listing, err := s.real.Nft(s.b.Context(), "list", "sets", "inet")
		if err == nil && !strings.Contains(listing, address) {
			err = fmt.Errorf("no set has %s", address)
		}
		return err
	})
}

// restart has another agent find everything at its start.
func (s *scale) restart() {
	s.b.Helper()
	s.real.KillAgent()
	start := time.Now()
	must(s.b, s.real.StartAgent())
	s.within("ready agent", func() error { return s.real.WaitAgentReady(s.b.Context()) })
	figures := map[string]float64{"s": time.Since(start).Seconds(), "CPU-s": s.cpu().Seconds()}
	s.awaitAll()
	maps.Copy(figures, s.memory())
	s.report("restarted", figures)
	s.reportHeap("restarted")
}

// cpu is the time that the agent has had on a CPU.
func (s *scale) cpu() time.Duration { return cpuOf(s.b, s.real.AgentPID()) }

// cpuOf is the time that a process has had on a CPU, with the children that it has waited for.
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(b, err)
	// proc_pid_stat(5): fields 14 to 17 are utime, stime, cutime and cstime, in ticks of 10 ms; 2
	// is in brackets.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:15] {
		n, err := strconv.Atoi(field)
		must(b, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// churn makes changes at a steady rate, as far as the machine can.
func (s *scale) churn(what string, perSecond int, change func(n int) error) {
	s.b.Helper()
	const ticks = 10 // a second
	before := s.commits()
	cpu, start, made := s.cpu(), time.Now(), 0
	tick := time.NewTicker(time.Second / ticks)
	defer tick.Stop()
	for time.Since(start) < churnFor {
		<-tick.C
		n := max(1, perSecond/ticks)
		must(s.b, change(n))
		made += n
	}
	took := time.Since(start)
	s.mark()
	all, after := time.Since(start), s.commits()
	figures := map[string]float64{
		"changes/s": float64(made) / took.Seconds(),
		"CPU-s/s":   (s.cpu() - cpu).Seconds() / all.Seconds(),
		"late-s":    (all - took).Seconds(),
		"batches":   float64(after.GetSampleCount() - before.GetSampleCount()),
		"MiB":       s.memory()["MiB"],
	}
	if figures["batches"] > 0 {
		figures["p50-ms"] = 1000 * bucketQuantile(before, after, 0.5)
		figures["p99-ms"] = 1000 * bucketQuantile(before, after, 0.99)
	}
	s.report(what, figures)
}

// commits is how long batches took that have changed the ruleset.
func (s *scale) commits() *dto.Histogram {
	s.b.Helper()
	text, err := s.metrics.text()
	must(s.b, err)
	h, err := text.histogram("sluice_event_to_commit_seconds")
	must(s.b, err)
	return h
}

// podChurn changes pods of other nodes: of ten changes, seven are of what no policy reads, one is
// of a label, and two replace a pod by one with other addresses.
type podChurn struct {
	*scale
	made   int
	states map[int]podState // of pods that have changed
	gone   []int            // deleted, and to be made again
}

func (c *podChurn) change(n int) error {
	var gone, changed []client.Object
	again := c.gone
	c.gone = nil
	for range n {
		i := c.made * 7919 % c.pods() // a prime: each pod in turn, in no order
		state := c.states[i]
		switch kind := c.made % 10; {
		case kind == 7:
			state.shift++
			changed = append(changed, c.pod(i, state))
		case kind == 8:
			gone, c.gone = append(gone, c.pod(i, state)), append(c.gone, i)
			state.life++
		case kind == 9 && len(again) > 0:
			changed, again = append(changed, c.pod(again[0], c.states[again[0]])), again[1:]
		default:
			state.restarts++
			changed = append(changed, c.pod(i, state))
		}
		c.states[i] = state
		c.made++
	}
	c.gone = append(c.gone, again...)
	return errors.Join(c.lab.Discard(c.b.Context(), slices.Values(gone)),
		c.lab.Store(c.b.Context(), slices.Values(changed)))
}

// bucketQuantile is the quantile of what a histogram has seen between two moments, as Prometheus
// finds it: evenly spread within a bucket. One beyond the last limit is that limit.
func bucketQuantile(before, after *dto.Histogram, q float64) float64 {
	type bucket struct{ limit, count float64 }
	var buckets []bucket
	for i, a := range after.GetBucket() {
		buckets = append(buckets, bucket{a.GetUpperBound(),
			float64(a.GetCumulativeCount() - before.GetBucket()[i].GetCumulativeCount())})
	}
	rank := q * float64(after.GetSampleCount()-before.GetSampleCount())
	last := bucket{}
	for _, now := range buckets {
		if now.count >= rank && now.count > last.count && !math.IsInf(now.limit, 1) {
			return last.limit + (now.limit-last.limit)*(rank-last.count)/(now.count-last.count)
		}
		if !math.IsInf(now.limit, 1) {
			last = now
		}
	}
	return last.limit
}
