package controllers

import (
	"context"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
)

// absent is an API server that is away: caches wait for it.
type absent struct {
	client.Reader

	asked chan struct{}
}

func (a absent) List(ctx context.Context, _ client.ObjectList, _ ...client.ListOption) error {
	close(a.asked)
	<-ctx.Done()
	return ctx.Err()
}

// While an agent that has just started waits for the API server, it answers all the same: whether
// it is ready, and DELs, which need the enforcer.
func TestAnswersWithoutAPIServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	e := enforcer.New(nil, enforcer.NewModel(cluster.Options{Node: "n1"}, ruleset.Config{}),
		enforcer.Options{})
	reader := absent{asked: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- (&Agent{Reader: reader, Enforcer: e}).Start(ctx) }()
	<-reader.asked
	answer := make(chan error, 1)
	go func() { answer <- e.Ready() }()
	select {
	case err := <-answer:
		if err == nil {
			t.Error("it is ready")
		}
	case <-time.After(10 * time.Second):
		t.Error("it doesn't say whether it is ready")
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("it has started")
	}
}
