package enforce

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/stretch"
)

// storm kills the agents of all nodes again and again, and changes policies meanwhile, in ways that
// allow nothing new to the world of the start test.
type storm struct {
	world
	kills   map[string]*atomic.Int32 // by node
	changes atomic.Int32
	random  func() *rand.Rand // one for each goroutine
	ctx     context.Context
}

// storm begins one. It ends with calm, which returns once all agents are ready again.
func (w *world) storm() (s *storm, calm func()) {
	w.t.Helper()
	seed := uint64(time.Now().UnixNano())
	w.t.Logf("the storm's seed is %d", seed)
	var streams atomic.Uint64
	s = &storm{world: *w, kills: map[string]*atomic.Int32{}, random: func() *rand.Rand {
		return rand.New(rand.NewPCG(seed, streams.Add(1)))
	}}
	ctx, stop := context.WithCancel(w.t.Context())
	s.ctx = ctx
	var all sync.WaitGroup
	for _, node := range w.Nodes() {
		s.kills[node.Name()] = &atomic.Int32{}
		random := s.random()
		all.Go(func() { s.haunt(node, random) })
	}
	random := s.random()
	all.Go(func() { s.meddle(random) })
	return s, func() {
		stop()
		all.Wait()
		for _, node := range w.Nodes() {
			w.must(node.StartAgent())
			w.must(node.WaitAgentReady(w.t.Context()))
		}
	}
}

// haunt lets a node's agent live for a while, mostly beyond its start, kills it, and leaves the
// node without one for a moment.
func (s *storm) haunt(node *lab.Node, random *rand.Rand) {
	between := func(least, most time.Duration) bool {
		return pause(s.ctx, least+time.Duration(random.Int64N(int64(most-least))))
	}
	for s.ctx.Err() == nil {
		if random.IntN(4) > 0 {
			// An agent that needs longer than the storm lasts is killed when it ends.
			_ = node.WaitAgentReady(s.ctx)
		}
		if !between(0, stretch.By(6*time.Second)) {
			return
		}
		node.KillAgent()
		s.kills[node.Name()].Add(1)
		between(0, stretch.By(500*time.Millisecond))
		if err := node.StartAgent(); err != nil {
			s.t.Errorf("starting the agent of %s: %v", node.Name(), err)
			return
		}
	}
}

// The policies that deny, in versions that all deny the same, and policies of other ports and other
// pods.
var (
	stormDenials = map[string][]string{
		"shut/no-egress": {
			`{podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress]}`,
			`{podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress], egress: [{ports: [{port: 9}]}]}`,
			`{podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress, Ingress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}`,
		},
		"server/no-entrance": {
			`{podSelector: {matchLabels: {guard: "yes"}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: open}}}]}]}`,
			`{podSelector: {matchLabels: {guard: "yes"}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: open}}}, {ipBlock: {cidr: 192.0.2.0/24}}]}]}`,
			`{podSelector: {matchLabels: {guard: "yes"}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [open, nowhere]}]}}]}, {from: [{podSelector: {}}], ports: [{port: 9}]}]}`,
		},
	}
	stormNoise = map[string][]string{
		"shut": {
			`{podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress], egress: [{ports: [{port: 9001}]}, {to: [{podSelector: {}}]}]}`,
			`{podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress], egress: [{ports: [{port: 81, protocol: UDP}]}]}`,
			`{podSelector: {matchLabels: {may-not: enter}}, policyTypes: [Ingress]}`,
		},
		"server": {
			`{podSelector: {matchLabels: {guard: "yes"}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 9002}]}]}`,
			`{podSelector: {matchLabels: {guard: "yes"}}, ingress: [{from: [{podSelector: {matchLabels: {may-not: enter}}}]}]}`,
			`{podSelector: {matchLabels: {guard: "no"}}, policyTypes: [Ingress, Egress]}`,
		},
		"open": {
			`{podSelector: {matchLabels: {may-not: sleep}}, policyTypes: [Ingress, Egress]}`,
			`{podSelector: {matchLabels: {may-not: leave}}, policyTypes: [Egress], egress: [{}]}`,
		},
	}
)

// meddle adds, edits and deletes policies.
func (s *storm) meddle(random *rand.Rand) {
	pick := func(specs []string) string { return specs[random.IntN(len(specs))] }
	for pause(s.ctx, stretch.By(time.Duration(random.IntN(100))*time.Millisecond)) {
		namespace := []string{"shut", "server", "open"}[random.IntN(3)]
		noise := fmt.Sprintf("%s/noise-%d", namespace, random.IntN(3))
		var err error
		switch random.IntN(4) {
		case 0:
			err = s.Delete(s.ctx, manifest(noise, "{}"))
		case 1:
			for name, versions := range stormDenials {
				err = s.Apply(s.ctx, manifest(name, pick(versions)))
			}
		case 2:
			err = s.renew(pick)
		default:
			err = s.Apply(s.ctx, manifest(noise, pick(stormNoise[namespace])))
		}
		if err != nil && s.ctx.Err() == nil {
			s.t.Errorf("changing policies: %v", err)
		}
		s.changes.Add(1)
	}
}

// renew deletes a policy that denies and creates it again, while another one denies the same.
func (s *storm) renew(pick func([]string) string) error {
	for name, versions := range stormDenials {
		spare := manifest(name+"-too", versions[0])
		policy := manifest(name, pick(versions))
		for _, step := range []struct {
			do       func(context.Context, string) error
			manifest string
		}{{s.Apply, spare}, {s.Delete, policy}, {s.Apply, policy}, {s.Delete, spare}} {
			if err := step.do(s.ctx, step.manifest); err != nil {
				return err
			}
		}
	}
	return nil
}

func manifest(key, spec string) string {
	namespace, name := split(key)
	return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: "+
		"{namespace: %s, name: %s}, spec: %s}", namespace, name, spec)
}

// report logs how bad the storm was, which must have met every node.
func (s *storm) report() {
	s.t.Helper()
	retries := 0
	for _, node := range s.Nodes() {
		log, err := os.ReadFile(filepath.Join(node.Dir(), "kubelet.log"))
		s.must(err)
		retries += strings.Count(string(log), "pod doesn't start")
		kills := s.kills[node.Name()].Load()
		s.t.Logf("the agent of %s was killed %d times", node.Name(), kills)
		if kills == 0 {
			s.t.Errorf("the agent of %s was never killed", node.Name())
		}
	}
	s.t.Logf("policies were changed %d times; %d starts of pods had to be tried again",
		s.changes.Load(), retries)
	if s.changes.Load() == 0 {
		s.t.Error("no policy was changed")
	}
}

// pause waits for d and says whether ctx hasn't ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
