package enforcer

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/benchcluster"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// BenchmarkAttachBeside: a pod goes and comes again, from the event to the kernel, while nothing
// else happens and while the policies of another namespace, as costly as may be, are all written
// anew.
func BenchmarkAttachBeside(b *testing.B) {
	for _, tenant := range []bool{false, true} {
		name := "beside=nothing"
		if tenant {
			name = "beside=tenant"
		}
		b.Run(name, func(b *testing.B) { benchAttachBeside(b, tenant) })
	}
}

func benchAttachBeside(b *testing.B, tenant bool) {
	b.Helper()
	table := packetworld.OpenTable(b, testnet.NewNode(b))
	e := onTable(table, cluster.Options{Node: "here"}, ruleset.Config{}, logr.Discard())
	e.model.Cluster = benchcluster.New(10, 1000)
	p := benchcluster.Pod(100) // in a namespace of its own
	attach := func(c *Model) {
		c.SetEndpoint(policy.Endpoint{ID: p.ID.Name, Pod: p.ID, Interface: "slup100",
			Addresses: p.Addresses})
	}
	e.Update(attach)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	if err := e.AwaitFirstCommit(ctx); err != nil {
		b.Fatal(err)
	}
	round := 0
	var slowest time.Duration
	for b.Loop() {
		if tenant {
			b.StopTimer()
			round++
			e.Update(func(c *Model) { setTenant(b, c.Cluster, round) })
			b.StartTimer()
		}
		start := time.Now()
		if err := e.Detach(ctx, p.ID.Name); err != nil {
			b.Fatal(err)
		}
		e.Update(attach)
		if err := e.await(ctx, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
		slowest = max(slowest, time.Since(start)/2)
	}
	b.ReportMetric(float64(slowest.Nanoseconds()), "slowest-ns")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	if err := table.Close(); err != nil {
		b.Fatal(err)
	}
}

// setTenant gives the first namespace four policies of 900 rules each, all of which are others than
// in the round before.
func setTenant(b *testing.B, c *cluster.Cluster, round int) {
	b.Helper()
	for i := range 4 {
		rules := make([]string, 900)
		for j := range rules {
			rules[j] = fmt.Sprintf(
				"{from: [{podSelector: {matchLabels: {x: v%d}}}], ports: [{port: %d}]}",
				(round%2*4+i)*len(rules)+j, 1+j)
		}
		np, err := cases.RenderPolicy(fmt.Sprintf("ns-0/tenant-%d", i),
			`{podSelector: {}, ingress: [`+strings.Join(rules, ", ")+`]}`, cases.Addr)
		if err != nil {
			b.Fatal(err)
		}
		c.SetPolicy(policy.Parse(np))
	}
}
