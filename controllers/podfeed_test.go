package controllers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/nfttest"
)

// podServer is an API server that has pods and tells one watcher of them.
type podServer struct {
	streams bool // lists by a watch, as API servers since Kubernetes 1.34 do
	mu      sync.Mutex
	pods    map[string]*corev1.Pod
	version int
	events  []watch.Event              // those that aren't lost
	watcher *watch.RaceFreeFakeWatcher // nil if nobody watches
	lists   int
}

func (s *podServer) listerWatcher() cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lists++
			list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: s.now()}}
			for _, p := range s.pods {
				list.Items = append(list.Items, *p)
			}
			return list, nil
		},
		WatchFuncWithContext: func(
			_ context.Context, o metav1.ListOptions,
		) (watch.Interface, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			wantsAll := o.SendInitialEvents != nil && *o.SendInitialEvents
			if wantsAll && !s.streams {
				return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil)
			}
			s.watcher = watch.NewRaceFreeFake()
			if wantsAll {
				s.lists++
				for _, p := range s.pods {
					s.watcher.Add(p.DeepCopy())
				}
				s.watcher.Action(watch.Bookmark, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
					ResourceVersion: s.now(),
					Annotations:     map[string]string{metav1.InitialEventsAnnotationKey: "true"}}})
				return s.watcher, nil
			}
			since, err := strconv.Atoi(o.ResourceVersion)
			for _, e := range s.events {
				if versionOf(e) > since {
					s.watcher.Action(e.Type, e.Object)
				}
			}
			return s.watcher, err
		},
	}
}

func (s *podServer) now() string { return fmt.Sprint(s.version) }

func versionOf(e watch.Event) int {
	version, _ := strconv.Atoi(e.Object.(*corev1.Pod).ResourceVersion)
	return version
}

// change has a pod be there with an address, or not be there if that is "". The watcher is told,
// unless that is lost.
func (s *podServer) change(name, addr string, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	was := s.pods[name]
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: name, UID: types.UID("uid-" + name),
			ResourceVersion: s.now()},
		Spec:   corev1.PodSpec{NodeName: "elsewhere"},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: addr}}},
	}
	s.pods[name] = p
	if addr == "" {
		delete(s.pods, name)
	}
	if lost {
		return
	}
	e := watch.Event{Type: watch.Modified, Object: p.DeepCopy()}
	switch {
	case addr == "":
		e.Type = watch.Deleted
	case was == nil:
		e.Type = watch.Added
	}
	s.events = append(s.events, e)
	if s.watcher != nil {
		s.watcher.Action(e.Type, e.Object)
	}
}

// expire ends the watch: what it has missed isn't known any more.
func (s *podServer) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := apierrors.NewResourceExpired("compacted").Status()
	s.watcher.Error(&status)
	s.watcher = nil
}

// TestPodFeed: the model has the pods that the API server has, by events and by lists, also when a
// watch has missed that pods went, came and changed.
func TestPodFeed(t *testing.T) {
	t.Parallel()
	for _, streams := range []bool{true, false} {
		t.Run(fmt.Sprintf("streams=%v", streams), func(t *testing.T) {
			t.Parallel()
			s := &podServer{streams: streams, pods: map[string]*corev1.Pod{}}
			s.change("a", "10.0.0.1", false)
			s.change("b", "10.0.0.1", false)
			e := enforcer.New(nil, enforcer.NewModel(cluster.Options{Node: "n1"}, ruleset.Config{}),
				enforcer.Options{})
			feed := newPodFeed(&Agent{Node: "n1", Enforcer: e})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			running.Go(func() { feed.run(ctx, s.listerWatcher(), testr.New(t)) })
			if !feed.awaitList(ctx, testr.New(t)) {
				t.Fatal("it has ended")
			}
			if got := podsIn(e); got != "dev/a=10.0.0.1 dev/b=10.0.0.1" {
				t.Errorf("after the first list: %s", got)
			}
			eventually := func(want string) {
				t.Helper()
				nfttest.Eventually(t, func() error {
					if got := podsIn(e); got != want {
						return fmt.Errorf("the model has %s, want %s", got, want)
					}
					return nil
				})
			}
			s.change("c", "10.0.0.2", false)
			s.change("b", "10.0.0.2", false)
			s.change("a", "", false)
			eventually("dev/b=10.0.0.2 dev/c=10.0.0.2")
			s.change("b", "", true)
			s.change("c", "10.0.0.1", true)
			s.change("d", "10.0.0.1", true)
			s.expire()
			eventually("dev/c=10.0.0.1 dev/d=10.0.0.1")
			s.change("d", "", false)
			eventually("dev/c=10.0.0.1")
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.lists != 2 {
				t.Errorf("%d lists, want 2", s.lists)
			}
		})
	}
}

// podsIn lists the pods of a model with their addresses.
func podsIn(e *enforcer.Enforcer) string {
	var out []string
	e.Update(func(m *enforcer.Model) {
		for p := range m.Pods() {
			said, _ := m.PodClaims(p.Namespace, p.Name)
			out = append(out, fmt.Sprintf("%s/%s=%s", p.Namespace, p.Name, said[0]))
		}
	})
	slices.Sort(out)
	return strings.Join(out, " ")
}

// A pod that can't be one isn't taken, and nothing else is lost.
func TestPodFeedRefuses(t *testing.T) {
	t.Parallel()
	e := enforcer.New(nil, enforcer.NewModel(cluster.Options{Node: "n1"}, ruleset.Config{}),
		enforcer.Options{})
	feed := newPodFeed(&Agent{Node: "n1", Enforcer: e})
	for what, try := range map[string]func(any) error{
		"add": feed.Add, "update": feed.Update, "delete": feed.Delete,
		"list": func(in any) error { return feed.Replace([]any{in}, "1") },
	} {
		if err := try(&corev1.Node{}); err == nil {
			t.Errorf("%s: a Node is taken for a pod", what)
		}
	}
}
