package controllers

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/randomcluster"
)

const ownNode = randomcluster.OwnNode

// variant makes other events of events, with the same end.
type variant struct {
	name string
	make func(was map[thing]event, events []event) []event
}

// variants are the ways in which the same events can come.
var variants = []variant{
	{"in order", func(_ map[thing]event, events []event) []event { return events }},
	{"reversed", func(_ map[thing]event, events []event) []event {
		order := things(events)
		slices.Reverse(order)
		return byThing(events, order)
	}},
	{"thing by thing", func(_ map[thing]event, events []event) []event {
		return byThing(events, things(events))
	}},
	{"squashed", func(_ map[thing]event, events []event) []event { return last(events) }},
	{"squashed and reversed", func(_ map[thing]event, events []event) []event {
		out := last(events)
		slices.Reverse(out)
		return out
	}},
	{"duplicated", func(_ map[thing]event, events []event) []event {
		var out []event
		for _, e := range events {
			out = append(out, e, e)
		}
		return out
	}},
	{"repeated as a whole", func(_ map[thing]event, events []event) []event {
		return append(slices.Clone(events), events...)
	}},
	{"split", splitAll},
	{"deleted and made again", func(_ map[thing]event, events []event) []event {
		var out []event
		for _, e := range events {
			out = append(out, e, event{thing: e.thing}, e)
		}
		return out
	}},
	{"addresses shared for a while", squat},
	{"attachments first, namespaces last", func(_ map[thing]event, events []event) []event {
		return sortedBy(events, "Attachment", tiered, "NetworkPolicy", "Pod", "Node", "Namespace")
	}},
	{"namespaces first, attachments last", func(_ map[thing]event, events []event) []event {
		return sortedBy(events, "Namespace", "Node", "Pod", "NetworkPolicy", tiered, "Attachment")
	}},
}

// things lists what events are about, in the order of first appearance.
func things(events []event) []thing {
	var out []thing
	for _, e := range events {
		if !slices.Contains(out, e.thing) {
			out = append(out, e.thing)
		}
	}
	return out
}

func byThing(events []event, order []thing) []event {
	var out []event
	for _, t := range order {
		for _, e := range events {
			if e.thing == t {
				out = append(out, e)
			}
		}
	}
	return out
}

// last keeps each thing's last event.
func last(events []event) []event {
	var out []event
	for i, e := range events {
		if !slices.ContainsFunc(events[i+1:],
			func(later event) bool { return later.thing == e.thing }) {
			out = append(out, e)
		}
	}
	return out
}

func sortedBy(events []event, kinds ...string) []event {
	out := slices.Clone(events)
	slices.SortStableFunc(out, func(a, b event) int {
		return slices.Index(kinds, a.kind) - slices.Index(kinds, b.kind)
	})
	return out
}

func splitAll(was map[thing]event, events []event) []event {
	now := maps.Clone(was)
	var out []event
	for _, e := range events {
		out = append(out, split(now[e.thing].object, e)...)
		now[e.thing] = e
	}
	return out
}

// squat lets other pods, newer and older ones, here and elsewhere, attached and not, have each
// pod's addresses for a while.
func squat(_ map[thing]event, events []event) []event {
	var out, ends []event
	for i, e := range events {
		pod, ok := e.object.(*corev1.Pod)
		if !ok || len(pod.Status.PodIPs) == 0 {
			out = append(out, e)
			continue
		}
		newer, older := pod.DeepCopy(), pod.DeepCopy()
		newer.Name, newer.UID = fmt.Sprintf("newer-%d", i), pod.UID+"-newer"
		newer.CreationTimestamp = metav1.NewTime(pod.CreationTimestamp.AddDate(1, 0, 0))
		older.Name, older.UID, older.Spec.NodeName = fmt.Sprintf("older-%d", i),
			pod.UID+"-older", ownNode
		older.CreationTimestamp = metav1.NewTime(pod.CreationTimestamp.AddDate(-1, 0, 0))
		at := wired(older)
		out = append(out, has(newer), attach(at), e, has(older))
		ends = append(ends, gone(newer), detach(at), gone(older))
	}
	return append(out, ends...)
}

// applyAll applies events, with a commit after each, or only where commit says.
func (r *replay) applyAll(events []event, commit func(i int) bool) {
	for i, e := range events {
		if r.policyOnly && e.kind == "Attachment" {
			continue // another plugin's pods have none
		}
		r.apply(e)
		if commit(i) {
			r.commit()
		}
	}
}

func always(int) bool       { return true }
func neverCommits(int) bool { return false }

// ways are where a path begins, when it is committed, after each event or only after the last, and
// how pods are heard of. With SLUICE_LONG=1 each with each.
func ways() []way {
	out := []way{{from: "what was before", commit: true}, {from: "what was before"},
		{from: "what was before", commit: true, lists: true}, {from: "nothing"},
		{from: "a restart", commit: true}}
	if os.Getenv("SLUICE_LONG") != "" {
		out = append(out, way{from: "nothing", commit: true}, way{from: "a restart"},
			way{from: "nothing", lists: true}, way{from: "a restart", lists: true})
	}
	return out
}

type way struct {
	from   string
	commit bool
	lists  bool // each time a pod changes, all pods are listed anew; ClusterNetworkPolicies alike
}

// TestAnyPathOneState: however the events of a scenario come, and whenever they are committed, the
// ruleset in the end is the one that a new agent makes of what exists then; and nothing is left to
// do.
func TestAnyPathOneState(t *testing.T) {
	t.Parallel()
	var paths atomic.Int64
	all := scenarios(t)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, policyOnly := range []bool{false, true} {
				want := s.endState(policyOnly)
				text := want.String()
				for _, v := range variants {
					for _, w := range ways() {
						if s.remembers && (w.from != "what was before" ||
							v.name == "addresses shared for a while") {
							continue
						}
						r := newReplay(policyOnly)
						r.lists = w.lists
						replayFrom(r, w, s, v)
						paths.Add(1)
						if err := r.settled(want, text); err != nil {
							t.Fatalf("%s, %+v, policy only %v: %v", v.name, w, policyOnly, err)
						}
					}
				}
			}
		})
	}
	t.Cleanup(func() { t.Logf("proof: %d scenarios, %d paths", len(all), paths.Load()) })
}

// endState is what a new agent renders of what exists in the end; where that isn't all that counts,
// what one renders that saw it all, at once.
func (s scenario) endState(policyOnly bool) *nft.Ruleset {
	r := newReplay(policyOnly)
	r.applyAll(slices.Concat(s.before, s.events), neverCommits)
	if s.remembers {
		r.commit()
		return r.have
	}
	return r.scratch()
}

func replayFrom(r *replay, w way, s scenario, v variant) {
	commit := neverCommits
	if w.commit {
		commit = always
	}
	was := map[thing]event{}
	if w.from == "nothing" {
		r.applyAll(v.make(was, slices.Concat(s.before, s.events)), commit)
		return
	}
	for _, e := range s.before {
		was[e.thing] = e
	}
	r.applyAll(s.before, neverCommits)
	r.commit()
	events := v.make(was, s.events)
	if w.from != "a restart" {
		r.applyAll(events, commit)
		return
	}
	half := len(events) / 2 // the agent dies in the middle, and doesn't see the rest happen
	r.applyAll(events[:half], commit)
	r.commit()
	for _, e := range events[half:] {
		if !r.policyOnly || e.kind != "Attachment" {
			r.note(e)
		}
	}
	r.start()
}

// TestRandomPathsOneState: the same for random worlds, from one to another by random events in a
// random order.
func TestRandomPathsOneState(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newReplay(rapid.Bool().Draw(t, "policy only"))
		r.lists = rapid.IntRange(0, 4).Draw(t, "lists") == 0
		before := drawEvents(t, nil, "before")
		r.applyAll(before, neverCommits)
		r.commit()
		events := drawEvents(t, before, "events")
		for range rapid.IntRange(0, 3).Draw(t, "variants") {
			v := rapid.SampledFrom(variants).Draw(t, "variant")
			was := map[thing]event{}
			for _, e := range before {
				was[e.thing] = e
			}
			if len(events) < 300 {
				events = v.make(was, events)
			}
		}
		commits := rapid.IntRange(1, 10).Draw(t, "commits")
		r.applyAll(events, func(i int) bool { return i%commits == 0 })
		if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
			r.commit()
			r.start()
		}
		want := r.scratch()
		if err := r.settled(want, want.String()); err != nil {
			t.Fatal(err)
		}
	})
}

// drawEvents draws the events that lead to a random world, in a random order. What was there before
// and isn't in that world goes.
func drawEvents(t *rapid.T, before []event, label string) []event {
	o := randomcluster.ObjectsGen(false).Draw(t, label)
	var out []event
	for _, ns := range o.Namespaces {
		out = append(out, has(ns))
	}
	for _, n := range o.Nodes {
		out = append(out, has(n))
	}
	for _, np := range o.Policies {
		out = append(out, has(np))
	}
	for _, cnp := range o.ClusterPolicies {
		out = append(out, has(cnp))
	}
	for _, pod := range o.Pods {
		out = append(out, has(pod))
	}
	for _, at := range o.Attachments {
		// What a pod whose object is gone keeps is no matter of the end state.
		if slices.Contains(o.Pods, at.Pod) {
			a := wired(at.Pod)
			a.Addresses = at.Addresses
			a.HostPorts = rapid.SliceOfN(rapid.Custom(hostPort), 0, 2).Draw(t, "host ports")
			out = append(out, attach(a))
		}
	}
	ends := things(out)
	for _, e := range before {
		if !slices.Contains(ends, e.thing) {
			out = append(out, event{thing: e.thing})
		}
	}
	return rapid.Permutation(out).Draw(t, "order")
}

func hostPort(t *rapid.T) cni.HostPort {
	return cni.HostPort{
		HostPort:      rapid.SampledFrom([]uint16{80, 81}).Draw(t, "host port"),
		ContainerPort: rapid.SampledFrom([]uint16{80, 81}).Draw(t, "container port"),
		Protocol:      rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol"),
	}
}
