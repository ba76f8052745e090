package bench

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// BenchmarkPeersPolicy is how long it takes from the request that makes or deletes a policy until
// it has effect, with kube-router in the same rounds, in a cluster of its own. There are so many
// other pods, each with a policy of its own; up to 100 of them are on the node.
//
// The policy allows connections from three clients to each of three servers. By kube-burner's terms
// minReady is when the first of them works, and Ready when all do. Denied is when the last of them
// fails first, as a new connection, once the policy is deleted. Cut is the share of those made
// before that carry nothing any more, a second after all are denied at most.
func BenchmarkPeersPolicy(b *testing.B) {
	program := peerAgents(b).KubeRouter
	rounds := 7
	if long {
		rounds = 25
	}
	clusters := []*policed{policedBySluice(b), policedByKubeRouter(b, program)}
	for _, n := range []int{9, 100, 1000} {
		for _, c := range clusters {
			c.grow(b, n)
			c.round(b, new(effects)) // everything is warm, and in the kernel, then
		}
		all := make([]effects, len(clusters))
		for round := range rounds {
			for i := range clusters {
				i = (i + round) % len(clusters)
				clusters[i].round(b, &all[i])
			}
		}
		for i, c := range clusters {
			figures := all[i].figures(&all[0])
			figures["MiB"] = memoryOf(b, c.pid())["MiB"]
			report(b, fmt.Sprintf("pods=%d/%s", n, c.name), figures)
		}
	}
}

// effects is what rounds gave: nanoseconds, but for cut.
type effects struct{ minReady, ready, denied, cut, cpu []float64 }

func (e *effects) figures(reference *effects) map[string]float64 {
	of := func(which func(*effects) []float64) float64 {
		return median(column{figures: which(e)}.ratios(column{figures: which(reference)}))
	}
	return map[string]float64{
		"ns-minReady-p50": median(e.minReady),
		"ns-Ready-p50":    median(e.ready), "ns-Ready-p99": quantile(e.ready, 0.99),
		"ns-denied-p50": median(e.denied), "ns-denied-p99": quantile(e.denied, 0.99),
		"cut": median(e.cut), "ns-CPU": median(e.cpu),
		"of-sluice-Ready":  of(func(e *effects) []float64 { return e.ready }),
		"of-sluice-denied": of(func(e *effects) []float64 { return e.denied }),
	}
}

// round makes the policy and deletes it.
func (c *policed) round(b *testing.B, e *effects) {
	b.Helper()
	ctx, cpu := b.Context(), cpuOf(b, c.pid())
	for _, f := range c.flows {
		must(b, f.renew())
	}
	policy := policyFor("open", "server", "client")
	start := time.Now()
	must(b, c.lab.Client().Create(ctx, policy))
	first, last := since(b, start, c.flows, (*flow).awaitAnswer)
	e.minReady, e.ready = append(e.minReady, first), append(e.ready, last)

	start = time.Now()
	must(b, client.IgnoreNotFound(c.lab.Client().Delete(ctx, policy)))
	_, last = since(b, start, c.flows, (*flow).awaitDenial)
	e.denied = append(e.denied, last)

	cut, err := shareCut(c.flows)
	must(b, err)
	e.cut = append(e.cut, cut)
	awaitRest(b, c.pid(), 300*time.Millisecond) // it may have more to do, and in its own turn
	e.cpu = append(e.cpu, float64(cpuOf(b, c.pid())-cpu)/2)
}

// since has all flows wait for something at once, and returns how long the first and the last one
// took.
func since(b *testing.B, start time.Time, flows []*flow,
	wait func(*flow) (time.Time, error)) (first, last float64) {
	b.Helper()
	times := make([]float64, len(flows))
	var waiting errgroup.Group
	for i, f := range flows {
		waiting.Go(func() error {
			at, err := wait(f)
			times[i] = float64(at.Sub(start))
			return err
		})
	}
	must(b, waiting.Wait())
	return quantile(times, 0), quantile(times, 1)
}

func shareCut(flows []*flow) (float64, error) {
	cut := make([]bool, len(flows))
	var asking errgroup.Group
	for i, f := range flows {
		asking.Go(func() (err error) {
			cut[i], err = f.isCut()
			return err
		})
	}
	err := asking.Wait()
	n := 0.0
	for _, isCut := range cut {
		if isCut {
			n++
		}
	}
	return n / float64(len(flows)), err
}
