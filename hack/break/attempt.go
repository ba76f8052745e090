package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// An outcome is what came of running tests.
type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"
	noTest  outcome = "matched no test"
	didNot  outcome = "didn't run" // for example as it doesn't compile
)

// A result is an outcome, the names of the tests that failed, and what was printed.
type result struct {
	outcome outcome
	by      []string
	output  string
}

// timeout is for the tests of one attempt.
const timeout = "20m"

// builds reports whether the folders that a break has changed still compile. Some tests build them
// while they run, and would take that for their failure.
func builds(ctx context.Context, root string, b *Break) error {
	for _, c := range b.Changes {
		//nolint:gosec // what is built is what the breaks of this repository name
		command := exec.CommandContext(ctx, "go", "build", "-C",
			filepath.Join(root, filepath.Dir(c.File)), "-o", os.DevNull, ".")
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("with the break, %s doesn't compile: %w\n%s", filepath.Dir(c.File),
				err, output)
		}
	}
	return nil
}

// attempt runs the tests in the tree at root.
func attempt(ctx context.Context, root string, t Test) result {
	//nolint:gosec // what runs is what the breaks of this repository name
	command := exec.CommandContext(ctx, "go", "test", "-C", filepath.Join(root, t.Module), "-race",
		"-count=1", "-timeout", timeout, "-json", "-run", t.Run, t.Package)
	output, err := command.CombinedOutput()
	return judge(output, err == nil)
}

// judge reads what go test -json printed.
func judge(output []byte, succeeded bool) result {
	var r result
	var ran, skips bool
	var text strings.Builder
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, len(output)+1)
	for lines.Scan() {
		var event struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			text.WriteString(lines.Text() + "\n")
			continue
		}
		text.WriteString(event.Output)
		if event.Test == "" {
			continue
		}
		switch event.Action {
		case "run":
			ran = true
		case "skip":
			skips = true
		case "fail":
			r.by = append(r.by, event.Test)
		}
	}
	slices.Sort(r.by)
	r.output = text.String()
	switch {
	case strings.Contains(r.output, "panic: test timed out after"):
		// the test that ran then counts as failed
		r.outcome = didNot
	case !succeeded && len(r.by) > 0:
		r.outcome = failed
	case !succeeded:
		r.outcome = didNot
	case !ran:
		r.outcome = noTest
	case skips:
		r.outcome = skipped
	default:
		r.outcome = passed
	}
	return r
}
