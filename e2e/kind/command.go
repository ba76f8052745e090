package kind

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// speakEvery is how often what goes on for long says so.
const speakEvery = 10 * time.Second

// command runs a program and returns what it wrote to its standard output, without the newline at
// its end.
func command(ctx context.Context, name string, args ...string) (string, error) {
	return commandIn(ctx, nil, name, args...)
}

// commandIn is command with a standard input.
func commandIn(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err,
			stdout.String(), stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// during says every few seconds that what do does goes on.
func during(progress io.Writer, what string, do func() error) error {
	linef(progress, "%s", what)
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- do() }()
	tick := time.NewTicker(speakEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			linef(progress, "%s: %s so far", what, time.Since(start).Round(time.Second))
		case err := <-done:
			return err
		}
	}
}

// linef writes one line for people.
func linef(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...)
}
