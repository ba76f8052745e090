package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sluice-net/sluice/controllers"
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

// runVerify asks the node's agent whether the kernel does what the policies
// mean, and prints the differences.
func runVerify(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("sluice-agent verify", flag.ContinueOnError)
	socket := fs.String("socket", "/run/sluice/cni.sock", "socket of the agent")
	timeout := fs.Duration("timeout", 2*time.Minute, "how long to wait for the answer")
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: sluice-agent verify [--socket FILE] [--timeout DURATION]\n\n"+
			"Reads the ruleset back from the kernel and holds what it does against what the policies mean.\n"+
			"Exits with 0 if it is the same, 1 if something differs, 2 if it couldn't be told.\n\n")
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
	answer, err := askVerify(ctx, *socket)
	if err != nil {
		return exitError{exitUnverified, fmt.Errorf("asking the agent at %s: %w", *socket, err)}
	}
	for _, d := range answer.Differences {
		fmt.Println(d)
	}
	switch {
	case answer.Error != "":
		return exitError{exitUnverified, errors.New(answer.Error)}
	case answer.Total > 0:
		return exitError{exitDiffers, fmt.Errorf("%d classes of packets of %d are treated otherwise than the policies mean", answer.Total, answer.Classes)}
	}
	fmt.Printf("the kernel does what the policies mean: %d classes of packets, each with every protocol and port\n", answer.Classes)
	return nil
}

func askVerify(ctx context.Context, socket string) (*controllers.VerifyAnswer, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/verify", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	answer := &controllers.VerifyAnswer{}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(answer); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return answer, nil
}
