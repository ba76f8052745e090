package enforce

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// cutLimit is how long after the API's answer bytes of a denied connection may arrive. The long
// form, on a machine with nothing else to do, holds it to that; a busy machine starves the agent,
// and is only asked whether connections end at all.
func cutLimit() time.Duration {
	if os.Getenv("SLUICE_LONG") != "" {
		return time.Second
	}
	return settleTime
}

// TestEstablished: what makes policy tighter ends the connections it denies, on the same node and
// across nodes, in both families, TCP and UDP, soon after the API's answer; and no other. Each node
// has 50,000 connections of others besides.
func TestEstablished(t *testing.T) { //nolint:tparallel // the parts take turns on one lab
	t.Parallel()
	l := newLab(t, labName(t, "cut"), lab.Options{Nodes: 2})
	w := newWorld(t, l, apart)
	for _, node := range l.Nodes() {
		w.must(node.Do(func() error {
			return testnet.Track(testnet.Crowd(stretch.Fewer(50_000), 1000)...)
		}))
	}
	var latencies []time.Duration
	rounds := 1
	if os.Getenv("SLUICE_LONG") != "" {
		rounds = 8
	}
	for range rounds {
		for _, part := range cutCases {
			t.Run(part.name, func(t *testing.T) {
				w := *w
				w.t = t
				latencies = append(latencies, part.run(&w)...)
			})
		}
	}
	if len(latencies) == 0 {
		return
	}
	slices.Sort(latencies)
	at := func(percent int) time.Duration { return latencies[(len(latencies)-1)*percent/100] }
	t.Logf("proof: last byte after the API's answer, %d connections: p50 %s, p99 %s, worst %s",
		len(latencies), at(50), at(99), at(100))
	if p99 := at(99); p99 > cutLimit() {
		t.Errorf("p99 is %s, want at most %s", p99, cutLimit())
	}
}

type cutCase struct {
	name   string
	before map[string]string // policies
	change func(w *world)
	undo   func(w *world)
	// denied and stays are flows before and after.
	denied, stays []string
}

const (
	nearby, across = "prod/web > dev/db", "dev/web > dev/db"
	fromLabelled   = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [
		{podSelector: {matchLabels: {app: web}}, namespaceSelector: {matchExpressions: [{key: env, operator: Exists}]}},
		{ipBlock: {cidr: {{ip4 "out"}}/32}}, {ipBlock: {cidr: {{ip6 "out"}}/128}}]}]}`
)

var cutCases = []cutCase{
	{
		name:   "policy created",
		change: func(w *world) { w.setPolicies(map[string]string{"dev/p": fromLabelled}) },
		denied: []string{"ops/probe > dev/db tcp/1", "ops/probe > dev/db udp/1"},
		stays:  []string{nearby + " tcp/1", across + " udp/1", "dev/db > ops/probe tcp/1"},
	},
	{
		name:   "policy edited",
		before: map[string]string{"dev/p": fromLabelled},
		change: func(w *world) {
			w.setPolicies(
				map[string]string{
					"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]}`})
		},
		denied: []string{nearby + " tcp/1", nearby + " udp/1", across + " tcp/1",
			across + " udp/1"},
		stays: []string{"dev/db > prod/web tcp/1", "dev/db > dev/web udp/1", "node > dev/db tcp/1"},
	},
	{
		name: "egress edited",
		before: map[string]string{
			"dev/p": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}`},
		change: func(w *world) {
			w.setPolicies(
				map[string]string{
					"dev/p": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}`})
		},
		denied: []string{across + " tcp/1", across + " udp/1", "dev/web > ops/probe tcp/1",
			"dev/web > out udp/1"},
		stays: []string{"dev/web > prod/web tcp/1", "dev/db > dev/web tcp/1"},
	},
	{
		name:   "pods relabelled",
		before: map[string]string{"dev/p": fromLabelled},
		change: func(w *world) {
			w.label("prod/web", map[string]any{"app": "cold"})
			w.label("dev/web", map[string]any{"app": "cold"})
		},
		undo: func(w *world) {
			w.label("prod/web", map[string]any{"app": "web"})
			w.label("dev/web", map[string]any{"app": "web"})
		},
		denied: []string{nearby + " tcp/1", nearby + " udp/1", across + " tcp/1",
			across + " udp/1"},
		stays: []string{"dev/db > prod/web udp/1", "out > dev/db tcp/1"},
	},
	{
		name:   "namespace relabelled",
		before: map[string]string{"dev/p": fromLabelled},
		change: func(w *world) { w.label("dev", map[string]any{"env": nil}) },
		undo:   func(w *world) { w.label("dev", map[string]any{"env": "dev"}) },
		denied: []string{across + " tcp/1", across + " udp/1"},
		stays:  []string{nearby + " tcp/1"},
	},
	{
		name:   "ipBlock changed",
		before: map[string]string{"dev/p": fromLabelled},
		change: func(w *world) {
			w.setPolicies(
				map[string]string{
					"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}},
				{ipBlock: {cidr: 0.0.0.0/0, except: [{{ip4 "out"}}/32]}}, {ipBlock: {cidr: "::/0", except: ["{{ip6 "out"}}/128"]}}]}]}`})
		},
		denied: []string{"out > dev/db tcp/1", "out > dev/db udp/1"},
		stays:  []string{nearby + " tcp/1", across + " udp/1"},
	},
}

// streams opens the flows in both families.
func (w *world) streams(flows []string) (out []*stream) {
	w.t.Helper()
	for _, f := range cases.MustFlows(flows) {
		for _, family := range f.Families {
			out = append(out, w.stream(f, family))
		}
	}
	return out
}

// run returns for how long connections went on after the API's answer.
func (c cutCase) run(w *world) (latencies []time.Duration) {
	defer func() {
		if c.undo != nil {
			c.undo(w)
		}
		w.deletePolicies("dev/p")
		w.allowed("ops/probe > dev/db tcp/80", "prod/web > dev/db tcp/80",
			"dev/web > dev/db tcp/80", "dev/web > out tcp/80")
	}()
	w.setPolicies(c.before)
	if c.before["dev/p"] == fromLabelled {
		w.denied("ops/probe > dev/db tcp/80") // it is in force
	}
	denied, stays := w.streams(c.denied), w.streams(c.stays)
	c.change(w)
	answered := time.Now()
	for _, s := range denied {
		latencies = append(latencies, max(0, s.ended().Sub(answered)))
	}
	for _, s := range stays {
		s.goesOn()
	}
	return latencies
}
