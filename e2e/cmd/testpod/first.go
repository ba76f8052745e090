package main

import (
	"context"
	"flag"
	"sync"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

const (
	firstEvery = 20 * time.Millisecond
	// firstTimeout of an attempt is for one TCP segment and its answer on a busy machine.
	firstTimeout = 500 * time.Millisecond
	controlEvery = 100 * time.Millisecond
)

// first starts a new connection to every denied target every 20 ms, from its first instruction on:
// a gap of the pod's policy, however short and whenever in that time, lets one of them out. Beside,
// it tries each control until that connects.
func first(ctx context.Context, args []string, out *printer) error {
	began := time.Now()
	var denied, control targetList
	flags := flag.NewFlagSet("first", flag.ContinueOnError)
	flags.Var(&denied, "denied", "where the pod must not get; may be repeated")
	flags.Var(&control, "control", "where the pod may get; may be repeated")
	length := flags.Duration("for", time.Second, "how long to try the denied targets")
	controlLength := flags.Duration("control-for", 15*time.Second,
		"how long to try the controls, at most")
	stay := flags.Bool("stay", false, "stay afterwards, until SIGTERM")
	if err := flags.Parse(args); err != nil {
		return err
	}
	outcome := testprogram.First{Denied: make([]testprogram.Tried, len(denied)),
		Control: make([]testprogram.Tried, len(control))}
	var all sync.WaitGroup
	for i, target := range denied {
		all.Go(func() { outcome.Denied[i] = hammer(ctx, target, began, firstEvery, *length) })
	}
	for i, target := range control {
		all.Go(func() {
			outcome.Control[i] = hammer(ctx, target, began, controlEvery, *controlLength)
		})
	}
	all.Wait()
	if err := out.print(testprogram.Report{First: &outcome}); err != nil {
		return err
	}
	if *stay {
		<-ctx.Done()
	}
	return nil
}

// hammer starts a connection every now and then, without waiting for those before it, until one
// works or the time is over.
func hammer(ctx context.Context, target testprogram.Target, began time.Time,
	every, length time.Duration) testprogram.Tried {
	// so that none waits once there is no reader
	results := make(chan testprogram.Result, length/every+2)
	tick := time.NewTicker(every)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	over := ctx.Done()
	tried := testprogram.Tried{}
	outstanding := 0
	start := func() {
		tried.Attempts++
		outstanding++
		go func() { results <- attempt(ctx, target, firstTimeout) }()
	}
	start()
	for over != nil || outstanding > 0 {
		select {
		case tried.Result = <-results:
			outstanding--
			tried.Seconds = time.Since(began).Seconds()
			if tried.OK {
				return tried
			}
		case <-tick.C:
			if over != nil {
				start()
			}
		case <-over:
			over = nil
		}
	}
	return tried
}
