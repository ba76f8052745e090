package preflight

import (
	"fmt"
	"io"

	"github.com/sluice-net/sluice/internal/printable"
)

// Status is what came of a check.
type Status string

// The outcomes, from good to bad.
const (
	Pass Status = "pass"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Result is what one check says. Its texts are one printable line each.
type Result struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"` // what to do; empty if it passed
}

// String is the result in one line.
func (r Result) String() string {
	line := fmt.Sprintf("%-4s  %-14s  %s", r.Status, r.Check, r.Found)
	if r.Remedy != "" {
		line += ". Remedy: " + r.Remedy
	}
	return line
}

// printed is the result with texts that can be printed, as names are others'.
func (r Result) printed() Result {
	r.Found, r.Remedy = printable.Line(r.Found), printable.Line(r.Remedy)
	return r
}

func passed(format string, args ...any) Result {
	return Result{Status: Pass, Found: fmt.Sprintf(format, args...)}
}

func warned(remedy, format string, args ...any) Result {
	return Result{Status: Warn, Found: fmt.Sprintf(format, args...), Remedy: remedy}
}

func failed(remedy, format string, args ...any) Result {
	return Result{Status: Fail, Found: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Worst is the worst outcome of all.
func Worst(results []Result) Status {
	worst := Pass
	for _, r := range results {
		if r.Status == Fail || r.Status == Warn && worst == Pass {
			worst = r.Status
		}
	}
	return worst
}

// Write prints results, a line each, and a line that counts them.
func Write(to io.Writer, results []Result) error {
	count := map[Status]int{}
	for _, r := range results {
		count[r.Status]++
		if _, err := fmt.Fprintln(to, r); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(to, "%d checks: %d passed, %d warned, %d failed\n", len(results),
		count[Pass], count[Warn], count[Fail])
	return err
}
