package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
)

const (
	// statusEagerly and statusEvery are how often the plugin is asked for its status: while the node isn't ready, and while it is.
	statusEagerly = 250 * time.Millisecond
	statusEvery   = 2 * time.Second
	// statusTimeout is how long it may take to answer.
	statusTimeout = 10 * time.Second
)

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

// configuration reads the node's CNI configuration as container runtimes do: the first by name counts.
func (r *runner) configuration() (*libcni.NetworkConfigList, error) {
	files, err := filepath.Glob(filepath.Join(r.options.confDir, "*.conflist")) // in order
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("CNI configuration of %s: there is none yet", r.options.node)
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		return nil, fmt.Errorf("reading the CNI configuration of %s: %w", r.options.node, err)
	}
	return list, nil
}

// watchNetwork asks again and again whether the node's network works, and reports it as the node's readiness, until ctx ends.
func (r *runner) watchNetwork(ctx context.Context) {
	reported := r.problem() // the node was registered with it
	for ctx.Err() == nil {
		problem := r.askStatus(ctx)
		if ctx.Err() != nil {
			return
		}
		r.network.set(problem)
		if problem != reported && r.report(ctx) {
			reported = problem
		}
		wait := statusEagerly
		if reported == "" {
			wait = statusEvery
		}
		_, changed := r.network.get()
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
func (r *runner) askStatus(ctx context.Context) string {
	ctx, done := r.power.use(ctx)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	list, err := r.configuration()
	if err == nil {
		err = r.onNode(func() error { return r.cni.GetStatusNetworkList(ctx, list) })
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// report writes the node's readiness into its object, and says whether that has worked.
func (r *runner) report(ctx context.Context) bool {
	err := r.options.report(ctx, r.problem())
	if err != nil {
		r.log.Error(err, "readiness isn't reported")
	}
	return err == nil
}

// problem is what is wrong with the node's network; "": nothing.
func (r *runner) problem() string {
	problem, _ := r.network.get()
	return problem
}

// waitNetwork waits until the node's network works.
func (r *runner) waitNetwork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		problem, changed := r.network.get()
		if problem == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the network of %s (%s): %w", r.options.node, problem, context.Cause(ctx))
		}
	}
}
