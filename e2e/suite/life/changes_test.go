package life

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// changePolicies goes round changes of policies that never alter what watchers and newcomers may
// do, until it is stopped.
func (w *world) changePolicies(ctx context.Context) (stop func() (changes int)) {
	ctx, cancel := context.WithCancel(ctx)
	changes := 0
	var done sync.WaitGroup
	done.Go(func() {
		defer ginkgo.GinkgoRecover()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for steps := w.policySteps(); ctx.Err() == nil; changes++ {
			if err := steps[changes%len(steps)](ctx); err != nil && ctx.Err() == nil {
				ginkgo.Fail("changing policies: " + err.Error())
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return func() int {
		cancel()
		done.Wait()
		return changes
	}
}

// policySteps are changes that lead round to where they began.
func (w *world) policySteps() []func(context.Context) error {
	policies := w.cluster.Client.NetworkingV1().NetworkPolicies(w.namespace)
	webs := metav1.LabelSelector{MatchLabels: map[string]string{appLabel: web}}
	// Friends may come for a second reason, which goes again; so may roles without pods.
	from := func(name, role string) *networkingv1.NetworkPolicy {
		return w.policy(name, networkingv1.NetworkPolicySpec{PodSelector: webs,
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{
					{PodSelector: &metav1.LabelSelector{
						MatchLabels: map[string]string{roleLabel: role}}}},
			}}})
	}
	create := func(policy *networkingv1.NetworkPolicy) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := policies.Create(ctx, policy, metav1.CreateOptions{})
			return err
		}
	}
	remove := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			return policies.Delete(ctx, name, metav1.DeleteOptions{})
		}
	}
	update := func(alter func(*networkingv1.NetworkPolicySpec)) func(context.Context) error {
		return func(ctx context.Context) error {
			policy, err := policies.Get(ctx, w.webPolicy().Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			policy.Spec = w.webPolicy().Spec
			alter(&policy.Spec)
			_, err = policies.Update(ctx, policy, metav1.UpdateOptions{})
			return err
		}
	}
	inOneItem := func(spec *networkingv1.NetworkPolicySpec) {
		spec.Ingress[0].From = []networkingv1.NetworkPolicyPeer{
			{PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: roleLabel, Operator: metav1.LabelSelectorOpIn,
					Values: []string{visitor, friend}},
			}}}}
	}
	twoRules := func(spec *networkingv1.NetworkPolicySpec) {
		second := *spec.Ingress[0].DeepCopy()
		second.From, spec.Ingress[0].From = second.From[1:], second.From[:1]
		spec.Ingress = append(spec.Ingress, second)
	}
	turned := func(spec *networkingv1.NetworkPolicySpec) {
		slices.Reverse(spec.Ingress[0].Ports)
		slices.Reverse(spec.Ingress[0].From)
		last := int32(90)
		spec.Ingress[0].Ports[0].EndPort = &last
	}
	return []func(context.Context) error{
		create(from("friends-again", friend)), update(inOneItem), create(from("nobody", "nobody")),
		update(twoRules),
		remove("friends-again"), update(turned),
		create(w.policy("deny-again", networkingv1.NetworkPolicySpec{PodSelector: webs})),
		remove("nobody"), update(func(*networkingv1.NetworkPolicySpec) {}), remove("deny-again"),
	}
}
