package controllers

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// skipGrace is how long a node may be out of reach before that is told. A Node object is born
// without pod CIDRs, and gets them within seconds: each joining node would be a problem on every
// other one.
const skipGrace = time.Minute

// eachSkip is how many nodes are told of at once with an Event for each; more share one for each
// cause, of which skipCauses are told.
const eachSkip, skipCauses = 3, 10

// skips remembers which nodes can't be reached, since when, and which of them were told. It has no
// clock: times are its caller's.
type skips map[overlay.Skipped]*skip

type skip struct {
	since time.Time
	told  bool
}

// due takes in which nodes can't be reached now, and returns those to tell of.
func (s skips) due(now time.Time, skipped []overlay.Skipped) (tell []overlay.Skipped) {
	still := make(map[overlay.Skipped]bool, len(skipped))
	for _, k := range skipped {
		still[k] = true
	}
	maps.DeleteFunc(s, func(k overlay.Skipped, _ *skip) bool { return !still[k] })
	for _, k := range skipped {
		if s[k] == nil {
			s[k] = &skip{since: now}
		}
		if known := s[k]; !known.told && now.Sub(known.since) >= skipGrace {
			known.told = true
			tell = append(tell, k)
		}
	}
	return tell
}

// skipNote is an Event about nodes that can't be reached: about Node, if that is one.
type skipNote struct{ node, reason, note string }

// skipNotes says what to tell of nodes for the first time.
func skipNotes(tell []overlay.Skipped) (out []skipNote) {
	if len(tell) <= eachSkip {
		for _, s := range tell {
			out = append(out, skipNote{s.Node, "NodeSkipped", s.String()})
		}
		return out
	}
	var causes []string
	nodes := map[string][]string{}
	for _, s := range tell {
		if nodes[s.Reason] == nil {
			causes = append(causes, s.Reason)
		}
		nodes[s.Reason] = append(nodes[s.Reason], s.Node)
	}
	for i, cause := range causes {
		if i == skipCauses {
			out = append(out,
				skipNote{"", "NodesSkipped",
					fmt.Sprintf(
						"nodes can't be reached for %d other reasons: the agent's log has them",
						len(causes)-i)})
			break
		}
		names := nodes[cause]
		first := strings.Join(names[:min(len(names), eachSkip)], ", ")
		if more := len(names) - eachSkip; more > 0 {
			first += fmt.Sprintf(" and %d more", more)
		}
		out = append(out, skipNote{"", "NodesSkipped", first + ": " + cause})
	}
	return out
}

// noteSkipped tells which nodes can't be reached.
func (n *PodNetwork) noteSkipped(now time.Time) {
	tell := n.skips.due(now, n.lastState.Skipped)
	for _, s := range tell {
		n.lines.Info(n.options.Log, s.Node, "A node can't be reached", "of", s.Node, "reason",
			s.Reason)
	}
	for _, note := range skipNotes(tell) {
		if note.node == "" {
			n.options.Events.Warn(note.reason, note.note)
			continue
		}
		n.options.Events.WarnAbout(note.node, note.reason, note.note)
	}
}
