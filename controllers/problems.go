package controllers

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/policy"
)

// problemLog remembers which version of a policy was reported, so that one version is reported
// once.
type problemLog struct {
	mu       sync.Mutex
	reported map[client.ObjectKey]problemReport
	total    int
}

type problemReport struct {
	uid        types.UID
	generation int64
	problems   int
}

// first notes a version of a policy, and reports whether it is a new one.
func (l *problemLog) first(about client.Object, problems int, m *Metrics) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := client.ObjectKeyFromObject(about)
	now := problemReport{about.GetUID(), about.GetGeneration(), problems}
	old := l.reported[key]
	if old == now {
		return false
	}
	if l.reported == nil {
		l.reported = map[client.ObjectKey]problemReport{}
	}
	l.reported[key] = now
	l.total += problems - old.problems
	m.noteProblems(l.total)
	return true
}

func (l *problemLog) forget(key client.ObjectKey, m *Metrics) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total -= l.reported[key].problems
	delete(l.reported, key)
	m.noteProblems(l.total)
}

// reportProblems logs which fields of a policy can't be read, and puts an Event on the policy if
// this node is its reporter: one Event, as the API server's clients take Events of one reason about
// one version for the same.
func (a *Agent) reportProblems(about client.Object, problems []policy.Problem, tells bool) {
	if !a.problems.first(about, len(problems), a.Metrics) || len(problems) == 0 {
		return
	}
	key := policy.Key{Namespace: about.GetNamespace(), Name: about.GetName()}
	a.lines.Info(a.Log, key.Namespace, "Fields of a policy can't be read", "policy", key.String(),
		"fields", problemNote(problems, longestLogNote))
	if a.Events != nil && tells {
		a.Events.Eventf(about, nil, corev1.EventTypeWarning, "UnreadableField", "Compile", "%s",
			problemNote(problems, notify.LongestNote))
	}
}

// longestLogNote bounds what one log line says of one policy, in bytes.
const longestLogNote = 4 << 10

// problemNote lists problems, at least one, and as many as fit into so many bytes.
func problemNote(problems []policy.Problem, most int) string {
	const more = "; and %d more"
	most -= len(more)
	note := notify.ClampTo(problems[0].String(), most)
	for i, p := range problems[1:] {
		next := note + "; " + p.String()
		if len(next) > most {
			return note + fmt.Sprintf(more, len(problems)-i-1)
		}
		note = next
	}
	return note
}
