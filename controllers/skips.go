package controllers

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

// skipGrace is how long a node may be out of reach before that is reported. A Node object is born
// without pod CIDRs, and gets them within seconds: each joining node would be a problem on every
// other one.
const skipGrace = time.Minute

// eachSkip is up to how many nodes get an Event each at once. More share an Event for each cause,
// and skipCauses causes get one.
const eachSkip, skipCauses = 3, 10

// skips remembers which nodes can't be reached, since when, and which of them were reported. It has
// no clock: times are its caller's.
type skips map[overlay.Skipped]*skip

type skip struct {
	since    time.Time
	reported bool
}

// due takes in which nodes can't be reached now, and returns those to report.
func (s skips) due(now time.Time, skipped []overlay.Skipped) (toReport []overlay.Skipped) {
	still := make(map[overlay.Skipped]bool, len(skipped))
	for _, k := range skipped {
		still[k] = true
	}
	maps.DeleteFunc(s, func(k overlay.Skipped, _ *skip) bool { return !still[k] })
	for _, k := range skipped {
		if s[k] == nil {
			s[k] = &skip{since: now}
		}
		if known := s[k]; !known.reported && now.Sub(known.since) >= skipGrace {
			known.reported = true
			toReport = append(toReport, k)
		}
	}
	return toReport
}

// skipNote is an Event about nodes that can't be reached: about Node, if that is one.
type skipNote struct{ node, reason, note string }

// skipNotes are the Events about nodes that are reported for the first time.
func skipNotes(toReport []overlay.Skipped) (out []skipNote) {
	if len(toReport) <= eachSkip {
		for _, s := range toReport {
			out = append(out, skipNote{s.Node, "NodeSkipped", s.String()})
		}
		return out
	}
	var causes []string
	nodes := map[string][]string{}
	for _, s := range toReport {
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

// noteSkipped reports which nodes can't be reached.
func (n *PodNetwork) noteSkipped(now time.Time) {
	toReport := n.skips.due(now, n.lastState.Skipped)
	for _, s := range toReport {
		n.lines.Info(n.options.Log, s.Node, "A node can't be reached", "of", s.Node, "reason",
			s.Reason)
	}
	for _, note := range skipNotes(toReport) {
		if note.node == "" {
			n.options.Events.Warn(note.reason, note.note)
			continue
		}
		n.options.Events.WarnAbout(note.node, note.reason, note.note)
	}
}
