package testprogram

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"
)

// Report is one line of what "serve", "first" and "watch" print. One field is set.
type Report struct {
	Serving bool   `json:"serving,omitempty"` // serve: all ports are open
	Peer    *Peer  `json:"peer,omitempty"`    // serve --report-peers: a connection came
	First   *First `json:"first,omitempty"`   // first: all is known
	// watch: from now on it counts (with --settle, each target has been as expected)
	Watching bool     `json:"watching,omitempty"`
	Attempt  *Attempt `json:"attempt,omitempty"` // watch: one that wasn't as expected
	// watch --lasting: one that is over, or was there at the end
	Break   *Break   `json:"break,omitempty"`
	Summary *Summary `json:"summary,omitempty"` // watch: every second and at the end
}

// Peer is a client that got through to a server: a TCP connection that was accepted, a UDP datagram
// that was received.
type Peer struct {
	At       time.Time      `json:"at"`
	Protocol string         `json:"protocol"`
	Port     uint16         `json:"port"`
	From     netip.AddrPort `json:"from"`
}

// First is the outcome of "first": what the program's very first instructions began.
type First struct {
	Denied  []Tried `json:"denied"`
	Control []Tried `json:"control"`
}

// Tried is a Result of several attempts: of the first that worked, or else of the last.
type Tried struct {
	Result

	Attempts int     `json:"attempts"`
	Seconds  float64 `json:"seconds"` // from the program's start until the result
}

// Attempt is one connection (or, with --lasting, one question) of "watch" that wasn't as expected.
type Attempt struct {
	Result

	At      time.Time `json:"at"`      // when it began
	Seconds float64   `json:"seconds"` // how long it took
}

// Break is a time in which a lasting connection didn't work: from the first question that had no
// answer to the next answer.
type Break struct {
	Target      string    `json:"target"`
	At          time.Time `json:"at"`
	Seconds     float64   `json:"seconds"`
	Error       string    `json:"error"`                 // the first one
	Reconnected bool      `json:"reconnected,omitempty"` // it took a new connection
	Lasts       bool      `json:"lasts,omitempty"`       // not over when the program ended
}

// Summary counts one target's attempts since the last summary. What began before Watching isn't
// counted.
type Summary struct {
	At        time.Time `json:"at"`
	Target    string    `json:"target"`
	Attempts  int       `json:"attempts"`
	Succeeded int       `json:"succeeded"`
}

// ReadLog reads the reports in a pod's log. Lines that aren't reports are passed over: another
// process' messages, or the rest of a line that was cut.
func ReadLog(log string) []Report {
	var reports []Report
	for line := range strings.Lines(log) {
		var report Report
		if json.Unmarshal([]byte(line), &report) == nil && report != (Report{}) {
			reports = append(reports, report)
		}
	}
	return reports
}
