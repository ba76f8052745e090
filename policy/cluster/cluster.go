package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Options are what a Cluster must know of its node.
type Options struct {
	// Node is this node's name.
	Node string
	// PolicyOnly says that another plugin decides which addresses pods have.
	PolicyOnly bool
	// AllowPodToNode exempts traffic from a pod to its own node from egress.
	AllowPodToNode bool
	// MergeFrom is how many policies of a namespace with one podSelector have their rules merged;
	// 0: 8. Below that, sets of peers are shared more, and rules are easier to read.
	MergeFrom int
	// Bounds are what each namespace's policies may cost.
	Bounds Bounds
}

// Cluster is the policy-relevant state of a cluster as one node sees it. It is not safe for
// concurrent use. Objects handed to it must not be modified afterwards.
type Cluster struct {
	opts       Options
	namespaces map[string]selector.Namespace // those that are known
	nodes      nodeBook
	policies   map[policy.Key]*policy.Policy
	bySubject  map[selector.Key]map[policy.Key]struct{}
	tiered     int // how many of the policies are ClusterNetworkPolicies
	// subjects matches policies to the pods attached to this node, peers the selectors in use to
	// all pods of the cluster.
	subjects, peers *selector.Index
	pods            podBook
	endpoints       map[string]policy.Endpoint
	sets            map[policy.SetID]*setState
	setsBySelector  map[selector.Key]map[policy.SetID]struct{} // of the peers index
	localBySelector map[selector.Key]map[policy.SetID]struct{} // of the subjects index
	rules           map[policy.Ref]*rulesState
	compiled        map[string]EndpointPolicy
	dirtyEndpoints  map[string]struct{}
	dirtyRules      map[policy.Ref]struct{}
	unused          []*policy.Set // uses of sets that rules have given up
	unfilled        int           // sets of which the last Take left members
	accounts        map[string]*account
	shed            map[policy.Key]shedPolicy // policies that are without rules now
	left            map[netip.Addr]struct{}   // since the last Take
}

// New returns an empty Cluster.
func New(opts Options) *Cluster {
	opts.Bounds, opts.MergeFrom = opts.Bounds.withDefaults(), cmp.Or(opts.MergeFrom, 8)
	return &Cluster{
		opts:       opts,
		namespaces: map[string]selector.Namespace{},
		nodes: nodeBook{
			told:     map[string]policy.Node{},
			standing: newStanding(nil, opts, nil),
		},
		policies:        map[policy.Key]*policy.Policy{},
		bySubject:       map[selector.Key]map[policy.Key]struct{}{},
		subjects:        selector.NewIndex(),
		peers:           selector.NewIndex(),
		pods:            newPodBook(),
		endpoints:       map[string]policy.Endpoint{},
		sets:            map[policy.SetID]*setState{},
		setsBySelector:  map[selector.Key]map[policy.SetID]struct{}{},
		localBySelector: map[selector.Key]map[policy.SetID]struct{}{},
		rules:           map[policy.Ref]*rulesState{},
		compiled:        map[string]EndpointPolicy{},
		dirtyEndpoints:  map[string]struct{}{},
		dirtyRules:      map[policy.Ref]struct{}{},
		accounts:        map[string]*account{},
		shed:            map[policy.Key]shedPolicy{},
		left:            map[netip.Addr]struct{}{},
	}
}

// SetNamespace adds or relabels a namespace. It has the label of its name, whatever its object
// says.
func (c *Cluster) SetNamespace(name string, labels map[string]string) {
	if labels[policy.NamespaceName] != name {
		labels = maps.Clone(labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[policy.NamespaceName] = name
	}
	set := selector.LabelSetOf(labels)
	known := c.namespaces[name].Known
	c.namespaces[name] = selector.Namespace{Name: name, Known: true, Labels: set}
	c.applyChanges(c.peers.SetNamespace(name, set), c.setsBySelector)
	c.applySubjectChanges(c.subjects.SetNamespace(name, set))
	if !known {
		c.markNamespace(name)
	}
}

// markNamespace marks the endpoints of a namespace that has become known, or unknown.
func (c *Cluster) markNamespace(name string) {
	for id, e := range c.endpoints {
		if e.Pod.Namespace == name {
			c.dirtyEndpoints[id] = struct{}{}
		}
	}
}

// placed reports whether the namespace of a pod that is known is known as well, where that counts:
// ClusterNetworkPolicies select by its labels.
func (c *Cluster) placed(pod *podRecord) bool {
	return c.tiered == 0 || !pod.known || c.namespace(pod.ID.Namespace).Known
}

// enforced reports whether policies are enforced on a pod: it is attached here, and what they have
// to know of it is known.
func (c *Cluster) enforced(pod *podRecord) bool { return pod.subject() && c.placed(pod) }

// countTiered counts ClusterNetworkPolicies that come and go.
func (c *Cluster) countTiered(p *policy.Policy, delta int) {
	if p == nil || p.Tier == policy.TierNetworkPolicy {
		return
	}
	was := c.tiered > 0
	if c.tiered += delta; was == (c.tiered > 0) {
		return
	}
	for id, e := range c.endpoints {
		if !c.namespace(e.Pod.Namespace).Known {
			c.dirtyEndpoints[id] = struct{}{}
		}
	}
}

// namespace is a namespace as selectors see it.
func (c *Cluster) namespace(name string) selector.Namespace {
	if ns, known := c.namespaces[name]; known {
		return ns
	}
	return selector.Namespace{Name: name}
}

// DeleteNamespace forgets a namespace; its pods are matched by no namespaceSelector from now on.
func (c *Cluster) DeleteNamespace(name string) {
	delete(c.namespaces, name)
	c.applyChanges(c.peers.DeleteNamespace(name), c.setsBySelector)
	c.applySubjectChanges(c.subjects.DeleteNamespace(name))
	c.markNamespace(name)
}

// applySubjectChanges marks the pods that policies select now, or no longer.
func (c *Cluster) applySubjectChanges(changes []selector.Change) {
	c.applyChanges(changes, c.localBySelector)
	for _, ch := range changes {
		c.markPod(ch.Pod)
	}
}

// applyChanges brings the sets of the named selectors in line. A pod that one selector of a set has
// lost may be picked by another one of it.
func (c *Cluster) applyChanges(changes []selector.Change,
	sets map[selector.Key]map[policy.SetID]struct{}) {
	type pick struct {
		set policy.SetID
		pod selector.Number
	}
	changed := map[pick]int{} // how many selectors more pick the pod
	for _, ch := range changes {
		more := 1
		if !ch.Member {
			more = -1
		}
		for id := range sets[ch.Selector] {
			changed[pick{id, ch.Pod}] += more
		}
	}
	for ch, more := range changed {
		set := c.sets[ch.set]
		n := c.picks(set, ch.pod)
		in, was := n > 0, n-more > 0
		if in == was {
			continue
		}
		c.putPod(set, ch.pod, in)
	}
}

// SetPolicy adds or replaces a policy.
func (c *Cluster) SetPolicy(p policy.Policy) {
	c.restore(p.Key.Namespace, true)
	old := c.policies[p.Key]
	c.policies[p.Key] = &p
	c.countTiered(&p, 1)
	c.countTiered(old, -1)
	subject := c.subjects.Add(p.Subject)
	if c.bySubject[subject] == nil {
		c.bySubject[subject] = map[policy.Key]struct{}{}
	}
	c.bySubject[subject][p.Key] = struct{}{}
	c.policyChanged(&p)
	if old == nil {
		return
	}
	if old.Subject.Key() != subject {
		c.policyChanged(old)
		c.forgetSubject(old)
	}
	c.subjects.Remove(old.Subject.Key())
}

// DeletePolicy forgets a policy.
func (c *Cluster) DeletePolicy(k policy.Key) {
	c.restore(k.Namespace, true)
	old := c.policies[k]
	if old == nil {
		return
	}
	delete(c.policies, k)
	c.countTiered(old, -1)
	c.policyChanged(old)
	c.forgetSubject(old)
	c.subjects.Remove(old.Subject.Key())
}

func (c *Cluster) forgetSubject(p *policy.Policy) {
	subject := p.Subject.Key()
	delete(c.bySubject[subject], p.Key)
	if len(c.bySubject[subject]) == 0 {
		delete(c.bySubject, subject)
	}
}

// policyChanged marks what a policy touches: the endpoints it selects and its own rules.
func (c *Cluster) policyChanged(p *policy.Policy) {
	for pod := range c.subjects.Members(p.Subject.Key()) {
		c.markPod(pod)
	}
	c.markRules(p)
}

func (c *Cluster) markRules(p *policy.Policy) {
	for _, ref := range refsOf(p) {
		c.dirtyRules[ref] = struct{}{}
	}
}

func (c *Cluster) markPod(n selector.Number) {
	if !c.pods.records.has(n) {
		return // it has just gone
	}
	for id := range c.pods.records.attachments(n) {
		c.dirtyEndpoints[id] = struct{}{}
	}
}

// Policies lists the keys of all known policies, sorted.
func (c *Cluster) Policies() []policy.Key {
	return slices.SortedFunc(maps.Keys(c.policies), policy.Key.Compare)
}
