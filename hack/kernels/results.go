package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// A Result is what came of one suite on one kernel.
type Result struct {
	Suite   string
	Seconds int
	// Status is the exit status; Died says that the kernel or the machine ended in it.
	Status int
	Died   bool
	Tests  Tests
}

// Tests is what the tests of a suite said. Tests are counted whole, not by their parts.
type Tests struct {
	Passed, Failed []string
	// Skipped has the reason why each test, or part of one, was skipped.
	Skipped map[string]string
	// Figures are the lines that tests log as "proof: ", and the results of a benchmark.
	Figures []string
}

// OK reports whether all that should hold was seen to.
func (r *Result) OK() bool {
	return !r.Died && r.Status == 0 && len(r.Tests.Failed) == 0 && len(r.Tests.Passed) > 0
}

// readTests reads what a test program printed with -test.v=test2json.
func readTests(ctx context.Context, log []byte) (Tests, error) {
	convert := exec.CommandContext(ctx, "go", "tool", "test2json")
	convert.Stdin = bytes.NewReader(log)
	events, err := convert.Output()
	if err != nil {
		return Tests{}, err
	}
	return collect(events), nil
}

// readBenchmark reads what a test program printed of a benchmark with parts: each is a figure.
func readBenchmark(name, log string) Tests {
	tests := Tests{}
	failed := false
	for line := range strings.Lines(log) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "--- FAIL: "+name):
			failed = true
		case len(words) >= 4 && strings.HasPrefix(line, name+"/"):
			var units []string
			for i := 2; i+1 < len(words); i += 2 { // behind the name and how often it ran
				units = append(units, words[i]+" "+words[i+1])
			}
			tests.Figures = append(tests.Figures, words[0]+": "+strings.Join(units, ", "))
		}
	}
	switch {
	case failed:
		tests.Failed = []string{name}
	case len(tests.Figures) > 0:
		tests.Passed = []string{name}
	}
	return tests
}

var (
	location = regexp.MustCompile(`^\s+[\w/.-]+\.go:\d+: `)
	figure   = regexp.MustCompile(`proof: (.*)`)
)

// collect reads the events of test2json.
func collect(events []byte) Tests {
	tests := Tests{Skipped: map[string]string{}}
	last := map[string]string{} // what each test logged last
	lines := bufio.NewScanner(bytes.NewReader(events))
	lines.Buffer(nil, len(events)+1)
	for lines.Scan() {
		var event struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &event) != nil || event.Test == "" {
			continue
		}
		whole := !strings.Contains(event.Test, "/")
		switch event.Action {
		case "output":
			text := strings.TrimRight(event.Output, "\n")
			if place := location.FindString(text); place != "" {
				last[event.Test] = text[len(place):]
			}
			if found := figure.FindStringSubmatch(text); found != nil {
				tests.Figures = append(tests.Figures, found[1])
			}
		case "pass":
			if whole {
				tests.Passed = append(tests.Passed, event.Test)
			}
		case "fail":
			if whole {
				tests.Failed = append(tests.Failed, event.Test)
			}
		case "skip":
			tests.Skipped[event.Test] = last[event.Test]
		}
	}
	slices.Sort(tests.Failed)
	return tests
}
