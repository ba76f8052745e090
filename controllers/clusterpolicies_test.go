package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/reference"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers/optional"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
)

// newTierFeed returns a feed of an agent that doesn't run, and what it puts Events into.
func newTierFeed(t *testing.T) (*clusterPolicyFeed, *events.FakeRecorder) {
	t.Helper()
	recorder := events.NewFakeRecorder(10)
	return newClusterPolicyFeed(&Agent{
		Node: "n1", Events: recorder, Log: testr.New(t), ClusterPolicies: &ClusterPolicies{},
		Enforcer: enforcer.New(nil, enforcer.NewModel(cluster.Options{Node: "n1"},
			ruleset.Config{}), enforcer.Options{}),
	}), recorder
}

// known lists the ClusterNetworkPolicies of the model, and whether Events can be put on them.
func (f *clusterPolicyFeed) knownPolicies() (out []string) {
	f.agent.Enforcer.Update(func(m *enforcer.Model) {
		for _, key := range m.Policies() {
			out = append(out, key.Name)
			if f.agent.ClusterPolicies.object(key.Name) == nil {
				out = append(out, "unknown")
			}
		}
	})
	return out
}

// stream returns an API object.
func stream(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	cnp, err := cases.RenderClusterPolicy(name,
		`{tier: Admin, priority: 1, subject: {namespaces: {}}}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	cnp.APIVersion, cnp.Kind = "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"
	return streamed(cnp).(*unstructured.Unstructured)
}

// TestClusterPolicyFeed: the model has what the API server has, by events and by lists; and an
// object of any shape is no reason to stop.
func TestClusterPolicyFeed(t *testing.T) {
	t.Parallel()
	f, recorder := newTierFeed(t)
	f.agent.Enforcer.Update(func(m *enforcer.Model) {
		m.SetPolicy(policy.Policy{Key: policy.Key{Namespace: "dev", Name: "other kind"}})
	})
	broken := stream(t, "broken")
	broken.Object["spec"] = "none"
	broken.SetUID("u1")
	for _, step := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"a list", func() error {
			return f.Replace([]any{stream(t, "a"), stream(t, "b")}, "")
		}, []string{"a", "b"}},
		{"one more", func() error { return f.Add(stream(t, "c")) },
			[]string{"a", "b", "c"}},
		{"one less", func() error { return f.Delete(stream(t, "a")) },
			[]string{"b", "c"}},
		{"one that can't be read", func() error { return f.Add(broken) },
			[]string{"b", "broken", "c"}},
		{"another list", func() error { return f.Replace([]any{stream(t, "c")}, "") },
			[]string{"c"}},
		{"none", func() error { return f.Replace(nil, "") }, nil},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		want := append(slices.Clone(step.want), "other kind", "unknown")
		if got := f.knownPolicies(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, expected %v", step.what, got, want)
		}
	}
	const told = `Warning UnreadableField spec: "json: cannot unmarshal string`
	if got := <-recorder.Events; !strings.HasPrefix(got, told) {
		t.Errorf("Event %q, expected %q", got, told)
	}
	if err := f.Add(&policy.Pod{}); err == nil {
		t.Error("a pod is taken for a policy")
	}
}

// TestUnreadableKindIsTold: once, and once when it is over; what is merely not listed yet is no
// news.
func TestUnreadableKindIsTold(t *testing.T) {
	t.Parallel()
	f, recorder := newTierFeed(t)
	f.Incomplete(errors.New("not listed yet"))
	f.Complete()
	f.Incomplete(fmt.Errorf("%w: v3", optional.ErrUnreadable))
	f.Incomplete(fmt.Errorf("%w: v3", optional.ErrUnreadable))
	f.Complete()
	f.Incomplete(errors.New("not listed yet"))
	f.Complete()
	close(recorder.Events)
	var got []string
	for e := range recorder.Events {
		got = append(got, e)
	}
	if len(got) != 2 || !strings.HasPrefix(got[0], "Warning ClusterPoliciesUnreadable ") ||
		!strings.Contains(got[0], "can't be read here: v3") ||
		!strings.HasPrefix(got[1], "Normal ClusterPoliciesReadable ") {
		t.Errorf("Events: %q", got)
	}
}

// TestFirstRulesetWaitsForClusterPolicies: what comes before the first ruleset isn't over until the
// API server has said which ClusterNetworkPolicies there are.
func TestFirstRulesetWaitsForClusterPolicies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, _ := newTierFeed(t)
		listed := newPodFeed(f.agent)
		if err := listed.Replace(nil, ""); err != nil {
			t.Fatal(err)
		}
		f.Incomplete(errors.New("not listed yet"))
		var goesOn bool
		go func() { goesOn = f.agent.awaitComplete(t.Context(), listed, f) }()
		synctest.Wait()
		if goesOn {
			t.Error("it goes on without them")
		}
		f.Complete()
		synctest.Wait()
		if !goesOn {
			t.Error("it doesn't go on with them")
		}
	})
}

// TestPodsWaitForClusterPolicies: from when there may be some that aren't known until the kernel
// has them.
func TestPodsWaitForClusterPolicies(t *testing.T) {
	t.Parallel()
	f, _ := newTierFeed(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it says at once what it waits for
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "isn't known here yet"},
		{func() { f.Incomplete(errors.New("no list")) }, "not all policies are known: no list"},
		{f.Complete, "not all policies are in the kernel yet"},
	} {
		step.do()
		err := f.agent.Enforcer.Attach(ctx, cni.Attachment{ContainerID: "c", IfName: "eth0"})
		if err == nil || !strings.Contains(err.Error(), step.want) {
			t.Errorf("a pod waits for %v, expected %q", err, step.want)
		}
	}
}

// regarded keeps what Events are put on.
type regarded []runtime.Object

func (r *regarded) Eventf(regarding, _ runtime.Object, _, _, _, _ string, _ ...any) {
	*r = append(*r, regarding)
}

// TestEventsOnClusterPolicies: what is reported of one is put on it, by its kind and version.
func TestEventsOnClusterPolicies(t *testing.T) {
	t.Parallel()
	f, _ := newTierFeed(t)
	object := stream(t, "guard")
	object.SetUID("u7")
	if err := f.Add(object); err != nil {
		t.Fatal(err)
	}
	recorder := &regarded{}
	r := &Reporter{Node: "n1", Events: recorder, ClusterPolicies: f.agent.ClusterPolicies}
	r.Refused(enforcer.Refusal{Err: errors.New("no such file"),
		Policies: []policy.Key{{Name: "guard"}, {Name: "gone"}}})
	if len(*recorder) != 1 {
		t.Fatalf("%d Events, expected one", len(*recorder))
	}
	about, err := reference.GetReference(runtime.NewScheme(), (*recorder)[0])
	want := corev1.ObjectReference{Name: "guard", UID: "u7", Kind: "ClusterNetworkPolicy",
		APIVersion: "policy.networking.k8s.io/v1alpha2"}
	if err != nil || *about != want {
		t.Errorf("an Event is on %+v (%v), expected %+v", about, err, want)
	}
}
