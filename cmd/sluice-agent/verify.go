package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers/answers"
	"github.com/sluice-net/sluice/internal/printable"
)

// The exit codes of verify.
const (
	exitDiffers    = 1
	exitUnverified = 2
)

// exitError ends the program with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// exitCode is 1 unless the error says otherwise.
func exitCode(err error) int {
	if e, ok := errors.AsType[exitError](err); ok {
		return e.code
	}
	return 1
}

// runVerify asks the node's agent whether the kernel does what the policies mean, and prints the
// differences.
func runVerify(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("sluice-agent verify", flag.ContinueOnError)
	socket := fs.String("socket", cni.DefaultSocket, "socket of the agent")
	timeout := fs.Duration("timeout", 2*time.Minute, "how long to wait for the answer")
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(),
			"usage: sluice-agent verify [--socket FILE] [--timeout DURATION]\n\n"+
				"Reads the ruleset back from the kernel and holds what it does against what the "+
				"policies mean.\n"+
				"Exits with 0 if it is the same, 1 if something differs, 2 if it couldn't be "+
				"judged.\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return exitError{exitUnverified, err}
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	var answer answers.VerifyAnswer
	if err := cni.NewClient(*socket).Get(ctx, cni.PathVerify, &answer); err != nil {
		return exitError{exitUnverified, err}
	}
	for _, d := range answer.Differences {
		fmt.Fprintln(printable.Writer(os.Stdout), d)
	}
	switch {
	case answer.Error != "":
		return exitError{exitUnverified, errors.New(answer.Error)}
	case answer.Total > 0:
		return exitError{exitDiffers,
			fmt.Errorf("%d classes of packets of %d are treated otherwise than the policies mean",
				answer.Total, answer.Classes)}
	}
	fmt.Printf("the kernel does what the policies mean: %d classes of packets, each with every "+
		"protocol and port\n", answer.Classes)
	return nil
}
