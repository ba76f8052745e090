package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
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
	files, err := filepath.Glob(filepath.Join(r.node.ConfDir(), "*.conflist")) // in order
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("CNI configuration of %s: there is none yet", r.node.name)
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		return nil, fmt.Errorf("reading the CNI configuration of %s: %w", r.node.name, err)
	}
	return list, nil
}

// watchNetwork asks again and again whether the node's network works, and reports it as the node's readiness, until ctx ends.
func (r *runner) watchNetwork(ctx context.Context) {
	reported := r.condition().Message // the node was registered with it
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
		err = r.node.Do(func() error { return r.cni.GetStatusNetworkList(ctx, list) })
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// report writes the node's readiness into its object, and says whether that has worked.
func (r *runner) report(ctx context.Context) bool {
	status := map[string]any{"conditions": []corev1.NodeCondition{r.condition()}}
	err := r.node.lab.patchNodeStatus(ctx, r.node.name, types.StrategicMergePatchType, status)
	if err != nil {
		r.log.Error(err, "readiness isn't reported")
	}
	return err == nil
}

// condition is the node's readiness.
func (r *runner) condition() corev1.NodeCondition {
	problem, _ := r.network.get()
	return readyCondition(problem)
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
			return fmt.Errorf("waiting for the network of %s (%s): %w", r.node.name, problem, context.Cause(ctx))
		}
	}
}

// stockConflist is a network by the CNI project's routed veth, with addresses from the node's ranges.
func (n *Node) stockConflist() map[string]any {
	var ranges, routes []any
	for _, cidr := range n.PodCIDRs() {
		ranges = append(ranges, []any{map[string]any{"subnet": cidr.String()}})
		anywhere := "0.0.0.0/0"
		if cidr.Addr().Is6() {
			anywhere = "::/0"
		}
		routes = append(routes, map[string]any{"dst": anywhere})
	}
	plugin := map[string]any{
		"type": "ptp",
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(n.dir, nodeRunDir, "host-local"), "ranges": ranges, "routes": routes,
		},
	}
	return map[string]any{"cniVersion": "1.1.0", "name": "stock", "plugins": []any{plugin}}
}
