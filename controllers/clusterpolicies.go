package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/controllers/optional"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
)

// clusterNetworkPolicies are a kind that an API server may not have. The versions differ in nothing
// that is read here.
var clusterNetworkPolicies = optional.Resource{
	Group: "policy.networking.k8s.io", Plural: "clusternetworkpolicies",
	Kind: "ClusterNetworkPolicy", Versions: []string{"v1beta1", "v1alpha2"},
}

// ClusterPolicies knows the ClusterNetworkPolicies of the cluster by what Events need of them. Its
// methods may be called from several goroutines.
type ClusterPolicies struct {
	mu    sync.Mutex
	known map[string]*metav1.PartialObjectMetadata
}

// object is the policy of a name as Events name it, nil if there is none.
func (c *ClusterPolicies) object(name string) client.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, there := c.known[name]
	if !there {
		return nil // not a nil of another type
	}
	return known
}

func (c *ClusterPolicies) set(policy *metav1.PartialObjectMetadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]*metav1.PartialObjectMetadata{}
	}
	c.known[policy.Name] = policy
}

func (c *ClusterPolicies) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, name)
}

// clusterPolicyFeed puts ClusterNetworkPolicies into the model as the API server streams them. Its
// methods are an optional.Store's, and called by one goroutine at a time.
type clusterPolicyFeed struct {
	agent *Agent
	told  string // why policies can't be read, as was reported; empty if they can
	once  sync.Once
	first chan struct{} // closed once the model has had all policies
}

func newClusterPolicyFeed(a *Agent) *clusterPolicyFeed {
	return &clusterPolicyFeed{agent: a, first: make(chan struct{})}
}

// clusterPoliciesOf makes what follows the ClusterNetworkPolicies of the manager's API server.
func (a *Agent) clusterPoliciesOf(
	mgr ctrl.Manager) (func(into optional.Store) *optional.Watch, error) {
	connection, err := dynamic.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", clusterNetworkPolicies.Definition(),
			err)
	}
	return func(into optional.Store) *optional.Watch {
		w := optional.Connect(connection, clusterNetworkPolicies, into,
			a.Log.WithName("clusterpolicies"))
		if a.Unwatched != nil {
			w.Unwatched = func() { a.Unwatched(clusterNetworkPolicies.Plural) }
		}
		return w
	}, nil
}

// awaitList returns when the model has had all policies, or false when ctx ends.
func (f *clusterPolicyFeed) awaitList(ctx context.Context, log logr.Logger) bool {
	log.V(1).Info("Waiting for ClusterNetworkPolicies, or for the answer that there are none. " +
		"Until then the last ruleset stays")
	select {
	case <-f.first:
		return true
	case <-ctx.Done():
		return false
	}
}

// Incomplete has pods wait: there may be policies that aren't known.
func (f *clusterPolicyFeed) Incomplete(why error) {
	f.agent.Enforcer.HoldPods(why)
	if !errors.Is(why, optional.ErrUnreadable) || f.told == why.Error() {
		return
	}
	f.told = why.Error()
	f.agent.Log.Error(why, "Pods wait, as there may be ClusterNetworkPolicies that this version "+
		"can't read. What was known of them stays; an agent that starts now leaves the last "+
		"ruleset as it is")
	f.nodeEvents().Warn("ClusterPoliciesUnreadable", "no pod starts on this node, and an agent "+
		"that starts leaves the last ruleset as it is: there may be ClusterNetworkPolicies that "+
		"this version of Sluice can't read: "+f.told)
}

// Complete lets pods start.
func (f *clusterPolicyFeed) Complete() {
	f.agent.Enforcer.ReleasePods()
	f.once.Do(func() { close(f.first) })
	if f.told != "" {
		f.nodeEvents().Say("ClusterPoliciesReadable", "ClusterNetworkPolicies can be read")
	}
	f.told = ""
}

func (f *clusterPolicyFeed) nodeEvents() notify.NodeEvents {
	return notify.NodeEvents{Node: f.agent.Node, Recorder: f.agent.Events}
}

// Add puts a new policy into the model.
func (f *clusterPolicyFeed) Add(in any) error { return f.Update(in) }

// Update puts a policy into the model.
func (f *clusterPolicyFeed) Update(in any) error {
	p, err := readClusterPolicy(in)
	if err != nil {
		return err
	}
	f.agent.Enforcer.Update(func(m *enforcer.Model) { f.set(m, p) })
	return nil
}

// Delete takes a policy out of the model.
func (f *clusterPolicyFeed) Delete(in any) error {
	p, err := readClusterPolicy(in)
	if err != nil {
		return err
	}
	f.agent.Enforcer.Update(func(m *enforcer.Model) { f.delete(m, p.about.Name) })
	return nil
}

// Replace makes a list the policies of the model, in one step.
func (f *clusterPolicyFeed) Replace(list []any, _ string) error {
	policies := make([]clusterPolicy, len(list))
	listed := map[string]bool{}
	for i, in := range list {
		p, err := readClusterPolicy(in)
		if err != nil {
			return err
		}
		policies[i] = p
		listed[p.about.Name] = true
	}
	f.agent.Enforcer.Update(func(m *enforcer.Model) {
		for _, p := range policies {
			f.set(m, p)
		}
		for _, key := range m.Policies() {
			if key.Namespace == "" && !listed[key.Name] {
				f.delete(m, key.Name)
			}
		}
	})
	return nil
}

// Resync has nothing to do: the model is what the policies say.
func (f *clusterPolicyFeed) Resync() error { return nil }

func (f *clusterPolicyFeed) set(m *enforcer.Model, p clusterPolicy) {
	m.SetPolicy(p.parsed)
	f.agent.ClusterPolicies.set(p.about)
	f.agent.reportProblems(p.about, p.parsed.Problems,
		notify.IsReporter(f.agent.Node, m.Nodes(), string(p.about.UID)))
}

func (f *clusterPolicyFeed) delete(m *enforcer.Model, name string) {
	m.DeletePolicy(policy.Key{Name: name})
	f.agent.ClusterPolicies.remove(name)
	f.agent.problems.forget(client.ObjectKey{Name: name}, f.agent.Metrics)
}

// clusterPolicy is what is read of one.
type clusterPolicy struct {
	parsed policy.Policy
	about  *metav1.PartialObjectMetadata
}

func readClusterPolicy(in any) (clusterPolicy, error) {
	object, ok := in.(*unstructured.Unstructured)
	if !ok {
		return clusterPolicy{}, fmt.Errorf("%T is not a ClusterNetworkPolicy", in)
	}
	about := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: object.GetName(),
		UID: object.GetUID(), Generation: object.GetGeneration()}}
	about.APIVersion, about.Kind = object.GetAPIVersion(), object.GetKind()
	return clusterPolicy{policy.ParseClusterObject(about.Name, object.Object), about}, nil
}
