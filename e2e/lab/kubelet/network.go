package kubelet

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/sluice-net/sluice/e2e/lab/wait"
	"github.com/sluice-net/sluice/test/stretch"
)

var (
	// statusEagerly and statusEvery are how often the plugin is asked for its status: while the
	// node isn't ready, and while it is.
	statusEagerly = stretch.By(250 * time.Millisecond)
	statusEvery   = stretch.By(2 * time.Second)
)

// statusTimeout is how long it may take to answer.
var statusTimeout = stretch.By(10 * time.Second)

// networkStatus is what the plugin said last.
type networkStatus struct {
	mu      sync.Mutex
	problem string        // empty: none
	changed chan struct{} // closed when problem changes, and replaced
}

func (s *networkStatus) get() (problem string, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem, s.changed
}

func (s *networkStatus) set(problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem != problem {
		s.problem = problem
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// configuration reads the node's CNI configuration as container runtimes do: the first by name
// counts.
func (k *Kubelet) configuration() (*libcni.NetworkConfigList, error) {
	files, err := filepath.Glob(filepath.Join(k.options.ConfDir, "*.conflist")) // in order
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("CNI configuration of %s: there is none yet", k.options.Node)
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		return nil, fmt.Errorf("reading the CNI configuration of %s: %w", k.options.Node, err)
	}
	return list, nil
}

// watchNetwork asks again and again whether the node's network works, and reports it as the node's
// readiness, until ctx ends.
func (k *Kubelet) watchNetwork(ctx context.Context) {
	reported := k.Problem() // the node was registered with it
	for ctx.Err() == nil {
		problem := k.askStatus(ctx)
		if ctx.Err() != nil {
			return
		}
		k.network.set(problem)
		if problem != reported && k.report(ctx) {
			reported = problem
		}
		wait := statusEagerly
		if reported == "" {
			wait = statusEvery
		}
		_, changed := k.network.get()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed: // a reboot says so
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// askStatus says what is wrong with the node's network, or nothing.
func (k *Kubelet) askStatus(ctx context.Context) string {
	ctx, done := k.power.use(ctx)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	list, err := k.configuration()
	if err == nil {
		err = k.onNode(func() error { return k.cni.GetStatusNetworkList(ctx, list) })
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// report writes the node's readiness into its object, and says whether that has worked.
func (k *Kubelet) report(ctx context.Context) bool {
	err := k.options.Report(ctx, k.Problem())
	if err != nil {
		k.log.Error(err, "readiness isn't reported")
	}
	return err == nil
}

// Problem is what is wrong with the node's network; "": nothing.
func (k *Kubelet) Problem() string {
	problem, _ := k.network.get()
	return problem
}

// WaitNetwork waits until the node's network works.
func (k *Kubelet) WaitNetwork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wait.ReadyTimeout)
	defer cancel()
	for {
		problem, changed := k.network.get()
		if problem == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the network of %s (%s): %w", k.options.Node, problem,
				context.Cause(ctx))
		}
	}
}
