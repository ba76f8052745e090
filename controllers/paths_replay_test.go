package controllers

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	networkpolicyapi "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/ruleworld"
)

// thing is what events are about. Events of one thing keep their order.
type thing struct {
	kind string
	key  client.ObjectKey // an attachment's Name is its ID
}

// event says what has become of a thing: an object, an attachment, or nothing any more.
type event struct {
	thing
	object     client.Object
	attachment *cni.Attachment
}

func has(o client.Object) event {
	return event{thing: thing{kindOf(o), client.ObjectKeyFromObject(o)}, object: o}
}

func gone(o client.Object) event { return event{thing: has(o).thing} }

func attach(a cni.Attachment) event {
	return event{thing: thing{"Attachment", client.ObjectKey{Name: a.ID()}}, attachment: &a}
}

func detach(a cni.Attachment) event { return event{thing: attach(a).thing} }

func kindOf(o client.Object) string {
	_, kind, _ := strings.Cut(fmt.Sprintf("%T", o), ".")
	return kind
}

// store is an API server's content, as a cache shows it.
type store map[thing]client.Object

func (s store) Get(_ context.Context, key client.ObjectKey, into client.Object,
	_ ...client.GetOption) error {
	o := s[thing{kindOf(into), key}]
	if o == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: kindOf(into)}, key.Name)
	}
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(o.DeepCopyObject()).Elem())
	return nil
}

func (s store) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return fmt.Errorf("nobody lists here")
}

// replay is an agent that gets events, and the ruleset that its commits lead to.
type replay struct {
	agent      *Agent
	model      *enforcer.Model // the agent's
	pods       *podFeed
	tiers      *clusterPolicyFeed
	lists      bool // pods come by lists alone
	store      store
	attached   map[string]cni.Attachment
	policyOnly bool
	have       *nft.Ruleset
}

// newReplay returns an agent that knows nothing. On a policy-only node another plugin wires the
// pods, and nothing is attached.
func newReplay(policyOnly bool) *replay {
	r := &replay{store: store{}, attached: map[string]cni.Attachment{}, policyOnly: policyOnly}
	r.start()
	return r
}

// start replaces the agent by a new one, which is shown what exists. What is in the kernel stays
// until its first commit.
func (r *replay) start() {
	cfg := ruleset.Config{LogPerSecond: 10}
	if !r.policyOnly {
		cfg.Network = ruleworld.Network()
	}
	r.model = enforcer.NewModel(cluster.Options{Node: ownNode, PolicyOnly: r.policyOnly}, cfg)
	r.agent = &Agent{
		Node: ownNode, Reader: r.store, Log: logr.Discard(),
		Enforcer:        enforcer.New(nil, r.model, enforcer.Options{}),
		PolicyOnly:      PolicyOnlyPods{Enabled: r.policyOnly, Guard: r.policyOnly},
		ClusterPolicies: &ClusterPolicies{},
	}
	r.pods, r.tiers = newPodFeed(r.agent), newClusterPolicyFeed(r.agent)
	r.agent.Enforcer.Adopt(slices.Collect(maps.Values(r.attached)))
	for t := range r.store {
		if t.kind != "Pod" && t.kind != tiered {
			r.reconcile(t)
		}
	}
	for _, kind := range []string{"Pod", tiered} {
		if err := r.list(kind); err != nil {
			panic(err)
		}
	}
}

func (r *replay) apply(e event) {
	r.note(e)
	r.reconcile(e.thing)
}

// note changes what exists, without a word to the agent.
func (r *replay) note(e event) {
	switch {
	case e.object != nil:
		r.store[e.thing] = e.object
	case e.attachment != nil:
		r.attached[e.key.Name] = *e.attachment
	default:
		delete(r.store, e.thing)
		delete(r.attached, e.key.Name)
	}
}

// reconcile has the agent look at a thing.
func (r *replay) reconcile(t thing) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing waits for a commit
	var err error
	switch t.kind {
	case "Namespace":
		err = r.agent.reconcileNamespace(ctx, t.key)
	case "Node":
		err = r.agent.reconcileNode(ctx, t.key)
	case "Pod", tiered:
		err = r.feed(t)
	case "NetworkPolicy":
		err = r.agent.reconcilePolicy(ctx, t.key)
	case "Attachment":
		if a, ok := r.attached[t.key.Name]; ok {
			r.agent.Enforcer.Adopt([]cni.Attachment{a}) // Attach is this and a wait
		} else {
			_ = r.agent.Enforcer.Detach(ctx, t.key.Name) // says that it didn't wait
		}
	default:
		err = fmt.Errorf("no reconciler of %s", t.kind)
	}
	if err != nil {
		panic(err)
	}
}

// tiered is a kind that comes, as pods do, without a cache.
const tiered = "ClusterNetworkPolicy"

// feed has the agent hear of an object: by an event, or by a new list of all of its kind.
func (r *replay) feed(t thing) error {
	var feed cache.ReflectorStore = r.pods
	var was client.Object = &corev1.Pod{}
	if t.kind == tiered {
		feed, was = r.tiers, &networkpolicyapi.ClusterNetworkPolicy{}
	}
	now := r.store[t]
	switch {
	case r.lists:
		return r.list(t.kind)
	case now == nil:
		was.SetNamespace(t.key.Namespace)
		was.SetName(t.key.Name)
		return feed.Delete(streamed(was))
	}
	return feed.Update(streamed(now))
}

// list has the agent hear of all objects of a kind that exist, and so of those that don't any more.
func (r *replay) list(kind string) error {
	var all []any
	for t, o := range r.store {
		if t.kind == kind {
			all = append(all, streamed(o))
		}
	}
	if kind == tiered {
		return r.tiers.Replace(all, "")
	}
	return r.pods.Replace(all, "")
}

// streamed is an object as its feed gets it.
func streamed(o client.Object) any {
	if kindOf(o) != tiered {
		return o
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		panic(err)
	}
	return &unstructured.Unstructured{Object: content}
}

// commit does what the Enforcer does with its model, without a kernel: the first ruleset of an
// agent is a difference to what is there, then come patches.
func (r *replay) commit() {
	_, whole, patch := r.model.Next(cluster.Everything)
	switch {
	case whole == nil:
		r.have.Merge(patch)
	case r.have == nil:
		r.have = whole
	default:
		r.have.Merge(nft.Diff(r.have, whole))
	}
}

// settled says what is wrong with the end of a path: another ruleset than the wanted one, which has
// this text, or something left to do.
func (r *replay) settled(want *nft.Ruleset, text string) error {
	r.commit()
	if diff := nft.Diff(r.have, want); !diff.Empty() || r.have.String() != text {
		return fmt.Errorf("the path leads to another ruleset (-from scratch +here):\n%s",
			cmp.Diff(text, r.have.String()))
	}
	changes, _, patch := r.model.Next(cluster.Everything)
	if !changes.Empty() {
		return fmt.Errorf("a second look finds changes: %+v", changes)
	}
	if !patch.Empty() {
		return fmt.Errorf("a second rendering finds changes: %+v", patch)
	}
	return nil
}

// scratch renders what exists in the end, by an agent that saw nothing else.
func (r *replay) scratch() *nft.Ruleset {
	fresh := &replay{store: r.store, attached: r.attached, policyOnly: r.policyOnly}
	fresh.start()
	fresh.commit()
	return fresh.have
}

// split returns the events by which an object changes field by field from what it was, nil if it
// wasn't, to what the event says.
func split(was client.Object, e event) []event {
	if e.object == nil {
		return []event{e}
	}
	var out []event
	step := func(o client.Object) { out = append(out, event{thing: e.thing, object: o}) }
	switch to := e.object.(type) {
	case *corev1.Namespace:
		step(&corev1.Namespace{ObjectMeta: bare(to).ObjectMeta})
	case *corev1.Node:
		now := &corev1.Node{ObjectMeta: to.ObjectMeta}
		if from, ok := was.(*corev1.Node); ok {
			now.Spec, now.Status = from.Spec, from.Status
		}
		step(now.DeepCopy())
		now.Status = to.Status
		step(now.DeepCopy())
	case *corev1.Pod:
		now := &corev1.Pod{ObjectMeta: *to.ObjectMeta.DeepCopy()}
		now.Labels, now.DeletionTimestamp = nil, nil
		if from, ok := was.(*corev1.Pod); ok && from.UID == to.UID {
			now = from.DeepCopy()
		}
		step(now.DeepCopy())
		now.Status = to.Status
		step(now.DeepCopy())
		now.ObjectMeta = to.ObjectMeta
		step(now.DeepCopy())
	case *networkingv1.NetworkPolicy:
		now := &networkingv1.NetworkPolicy{ObjectMeta: to.ObjectMeta}
		if from, ok := was.(*networkingv1.NetworkPolicy); ok {
			now.Spec = from.Spec
		}
		for _, set := range []func(){
			func() { now.Spec.PodSelector = to.Spec.PodSelector },
			func() { now.Spec.Ingress = to.Spec.Ingress },
			func() { now.Spec.Egress = to.Spec.Egress },
		} {
			set()
			step(now.DeepCopy())
		}
	case *networkpolicyapi.ClusterNetworkPolicy:
		now := &networkpolicyapi.ClusterNetworkPolicy{ObjectMeta: to.ObjectMeta}
		if from, ok := was.(*networkpolicyapi.ClusterNetworkPolicy); ok {
			now.Spec = from.Spec
		}
		for _, set := range []func(){
			func() { now.Spec.Subject = to.Spec.Subject },
			func() { now.Spec.Ingress = to.Spec.Ingress },
			func() { now.Spec.Tier, now.Spec.Priority = to.Spec.Tier, to.Spec.Priority },
			func() { now.Spec.Egress = to.Spec.Egress },
		} {
			set()
			step(now.DeepCopy())
		}
	}
	return append(out, e)
}

func bare(ns *corev1.Namespace) *corev1.Namespace {
	out := ns.DeepCopy()
	out.Labels = nil
	return out
}
