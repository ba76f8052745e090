package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/controllers/optional"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/internal/fair"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Agent feeds an Enforcer from the API server. Its reconcilers put one object each from the cache
// into the model, and pods come there straight from the API server; the Enforcer does the rest.
type Agent struct {
	Node     string // this node's name
	Reader   client.Reader
	Pods     cache.ListerWatcher // of the cluster; SetupWithManager sets it
	Enforcer *enforcer.Enforcer
	Events   events.EventRecorder
	Metrics  *Metrics // may be nil
	Log      logr.Logger
	// OwnNode gets this node's pod ranges, and its InternalIPs, each time its object is read.
	OwnNode func(podCIDRs []netip.Prefix, addresses []netip.Addr)
	// Network makes the pod network; nil where another plugin does, and then
	// PolicyOnly says how its
	// pods are found.
	Network    *PodNetwork
	PolicyOnly PolicyOnlyPods
	// Tunnel gets which nodes are ready; may be nil.
	Tunnel *TunnelCheck
	// Left gets the addresses that pods have left; may be nil.
	Left func(addrs []netip.Addr)
	// ClusterPolicies learns which ClusterNetworkPolicies there are.
	ClusterPolicies *ClusterPolicies
	// Unwatched gets the name of a resource that isn't watched any more; may be nil.
	Unwatched func(resource string)

	// follow makes what follows the ClusterNetworkPolicies; SetupWithManager sets it. Without it
	// there are none.
	follow   func(into optional.Store) *optional.Watch
	problems problemLog
	lines    fair.Log // about what policies of a namespace cause

	makeOwnNode sync.Once
	ownNode     chan struct{} // closed once this node's object was read
}

// SetupWithManager adds the agent's reconcilers and its first write to the manager, which runs the
// latter when all caches have synced, and takes pods from the manager's API server.
func (a *Agent) SetupWithManager(mgr ctrl.Manager) error {
	var err error
	if a.Pods, err = podsOf(mgr); err != nil {
		return err
	}
	if a.follow, err = a.clusterPoliciesOf(mgr); err != nil {
		return err
	}
	for _, kind := range []struct {
		object client.Object
		put    func(ctx context.Context, key client.ObjectKey) error
	}{
		{&corev1.Namespace{}, a.reconcileNamespace},
		{&corev1.Node{}, a.reconcileNode},
		{&networkingv1.NetworkPolicy{}, a.reconcilePolicy},
	} {
		err := ctrl.NewControllerManagedBy(mgr).For(kind.object).Complete(reconciler(kind.put))
		if err != nil {
			return fmt.Errorf("watching %T: %w", kind.object, err)
		}
	}
	return mgr.Add(a)
}

type reconciler func(ctx context.Context, key client.ObjectKey) error

func (r reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return ctrl.Result{}, r(ctx, req.NamespacedName)
}

// Start lists everything that exists, and then follows pods and commits until ctx ends. The caches
// hold all but the pods when the manager calls it.
func (a *Agent) Start(ctx context.Context) error {
	var namespaces corev1.NamespaceList
	var nodes corev1.NodeList
	var policies networkingv1.NetworkPolicyList
	lists := []client.ObjectList{&namespaces, &nodes, &policies}
	// This waits for the caches, which takes as long as the API server is away. Update would keep
	// all others out meanwhile.
	for _, list := range lists {
		if err := a.Reader.List(ctx, list, client.Limit(1)); err != nil {
			return fmt.Errorf("listing %T: %w", list, err)
		}
	}
	var err error
	a.Enforcer.Update(func(m *enforcer.Model) {
		for _, list := range lists {
			if err = a.Reader.List(ctx, list); err != nil {
				err = fmt.Errorf("listing %T: %w", list, err)
				return
			}
		}
		for i := range namespaces.Items {
			m.SetNamespace(namespaces.Items[i].Name, namespaces.Items[i].Labels)
		}
		for i := range nodes.Items {
			a.setNode(m, &nodes.Items[i])
		}
		for i := range policies.Items {
			a.setPolicy(m, &policies.Items[i])
		}
	})
	if err != nil {
		return err
	}
	feed := newPodFeed(a)
	var following sync.WaitGroup
	defer following.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	following.Go(func() { feed.run(ctx, a.Pods, a.Log.WithName("pods")) })
	tiers := newClusterPolicyFeed(a)
	if a.follow == nil {
		tiers.Complete()
	} else {
		following.Go(func() { a.follow(tiers).Run(ctx) })
	}
	if !a.awaitComplete(ctx, feed, tiers) {
		return nil // the agent ends
	}
	var pods, all int
	a.Enforcer.Update(func(m *enforcer.Model) { pods, all = m.PodCount(), len(m.Policies()) })
	a.Log.Info("Writing the first ruleset", "pods", pods, "namespaces", len(namespaces.Items),
		"policies", all)
	return a.Enforcer.Run(ctx)
}

// awaitComplete returns when the model has what the first ruleset needs, which replaces an earlier
// agent's, or false when ctx ends. Everything but the pods is listed.
func (a *Agent) awaitComplete(ctx context.Context, feed *podFeed, tiers *clusterPolicyFeed) bool {
	if !feed.awaitList(ctx, a.Log) || !tiers.awaitList(ctx, a.Log) {
		return false
	}
	if a.Network != nil {
		a.Network.Listed()
		if a.Network.awaitSettled(ctx) != nil {
			return false
		}
	}
	// Only the node's object says which addresses to guard.
	return !a.PolicyOnly.Guard || a.awaitOwnNode(ctx)
}

// awaitOwnNode returns when this node's object was read, or false when ctx ends.
func (a *Agent) awaitOwnNode(ctx context.Context) bool {
	select {
	case <-a.ownNodeRead():
		return true
	default:
	}
	a.Log.Info("Waiting for this node's object: it says which addresses are its pods'. Until " +
		"then the last ruleset stays")
	select {
	case <-a.ownNodeRead():
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *Agent) ownNodeRead() chan struct{} {
	a.makeOwnNode.Do(func() { a.ownNode = make(chan struct{}) })
	return a.ownNode
}

// update reads an object and puts it, or its absence, into the model.
func update[T client.Object](ctx context.Context, a *Agent, key client.ObjectKey, into T,
	set func(*enforcer.Model, T), remove func(*enforcer.Model)) error {
	var err error
	a.Enforcer.Update(func(m *enforcer.Model) {
		if err = a.Reader.Get(ctx, key, into); err == nil {
			set(m, into)
		} else if client.IgnoreNotFound(err) == nil {
			remove(m)
			err = nil
		}
	})
	return err
}

func (a *Agent) reconcileNamespace(ctx context.Context, key client.ObjectKey) error {
	return update(ctx, a, key, &corev1.Namespace{},
		func(m *enforcer.Model, ns *corev1.Namespace) { m.SetNamespace(ns.Name, ns.Labels) },
		func(m *enforcer.Model) { m.DeleteNamespace(key.Name) })
}

func (a *Agent) reconcileNode(ctx context.Context, key client.ObjectKey) error {
	return update(ctx, a, key, &corev1.Node{}, a.setNode, func(m *enforcer.Model) {
		m.DeleteNode(key.Name)
		if a.Network != nil {
			a.Network.DeleteNode(key.Name)
		}
		a.Tunnel.setNode(key.Name, false)
	})
}

func (a *Agent) reconcilePolicy(ctx context.Context, key client.ObjectKey) error {
	return update(ctx, a, key, &networkingv1.NetworkPolicy{}, a.setPolicy, func(m *enforcer.Model) {
		m.DeletePolicy(policy.Key{Namespace: key.Namespace, Name: key.Name})
		a.problems.forget(key, a.Metrics)
	})
}

func (a *Agent) setPod(m *enforcer.Model, p *policy.Pod) {
	before := m.PodAddresses(p.ID.Namespace, p.ID.Name)
	m.SetPod(*p)
	a.moved(before, m.PodAddresses(p.ID.Namespace, p.ID.Name))
	if p.Node == a.Node {
		a.PolicyOnly.set(m.Cluster, p)
	} else { // an earlier pod of its name may have been here, whose end wasn't seen
		a.PolicyOnly.forget(m.Cluster, p.Key())
	}
}

func (a *Agent) setNode(m *enforcer.Model, n *corev1.Node) {
	m.SetNode(policy.NodeFrom(n))
	if a.Network != nil {
		a.Network.SetNode(n)
	}
	a.Tunnel.setNode(n.Name, nodeReady(n))
	if n.Name != a.Node {
		return
	}
	// An object that was just made again may have no podCIDRs yet; the node's pods still have their
	// addresses.
	if ranges := podCIDRs(n); a.PolicyOnly.Guard && len(ranges) > 0 {
		m.SetGuard(ranges)
	}
	select {
	case <-a.ownNodeRead():
	default:
		close(a.ownNode) // no lock: this is within Update
	}
	if a.OwnNode != nil {
		a.OwnNode(podCIDRs(n), internalIPs(n))
	}
}

// moved passes on the addresses that a pod had before and hasn't now.
func (a *Agent) moved(before, now []netip.Addr) {
	left := slices.DeleteFunc(slices.Clone(before), func(addr netip.Addr) bool {
		return slices.Contains(now, addr)
	})
	if a.Left != nil && len(left) > 0 {
		a.Left(left)
	}
}

// nodeReady reports whether a node is ready, as far as Kubernetes knows.
func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// internalIPs lists a node's InternalIPs; those that can't be read are left out.
func internalIPs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		// An address with a zone would compare as different from all others, and would lose its
		// zone in the kernel.
		addr, err := netip.ParseAddr(a.Address)
		if err == nil && addr.Zone() == "" && a.Type == corev1.NodeInternalIP {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// podCIDRs reads a node's ranges; those that can't be read are left out.
func podCIDRs(n *corev1.Node) []netip.Prefix {
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 && n.Spec.PodCIDR != "" {
		texts = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range texts {
		if p, err := selector.ParseCIDR(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

func (a *Agent) setPolicy(m *enforcer.Model, np *networkingv1.NetworkPolicy) {
	p := policy.Parse(np)
	m.SetPolicy(p)
	a.reportProblems(np, p.Problems, notify.IsReporter(a.Node, m.Nodes(), string(np.UID)))
}
