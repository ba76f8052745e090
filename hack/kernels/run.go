package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A kernel that the tests run on.
type kernel struct {
	suite string // of Debian
	// below says that it is older than what Sluice needs: what runs there shows that nothing is
	// changed.
	below bool
}

// kernels are in the order of their versions.
var kernels = []kernel{
	{suite: "bullseye", below: true}, // 5.10
	{suite: "bookworm"},              // 6.1
	{suite: "bookworm-backports"},    // 6.12
	{suite: "trixie-backports"},      // the newest that a stable Debian can have
}

// A Report is what was seen on one kernel.
type Report struct {
	Kernel  *Kernel
	Version string // what uname -v says there
	Boot    int    // seconds since the kernel's start
	Total   time.Duration
	Results []*Result
}

// OK reports whether all that ran there passed.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Results, func(s *Result) bool { return !s.OK() })
}

// run builds what the flags ask for, runs it on the kernels, and returns what was seen there. The
// error says that something couldn't be done; failed tests are in the reports.
func (j *job) run(ctx context.Context) ([]*Report, error) {
	unlock, err := lock(filepath.Join(j.out, "lock"), func() {
		j.say("waiting for another one that runs in this folder")
	})
	if err != nil {
		return nil, err
	}
	defer unlock()
	fetched, err := j.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if err := j.build(ctx); err != nil {
		return nil, err
	}
	reports := make([]*Report, len(fetched))
	failures := make([]error, len(fetched))
	slots := make(chan struct{}, j.atOnce)
	var all sync.WaitGroup
	for i, k := range fetched {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			reports[i], failures[i] = j.runOn(ctx, k, j.suitesOn(j.kernels[i]))
		})
	}
	all.Wait()
	return reports, errors.Join(failures...)
}

func (j *job) fetch(ctx context.Context) ([]*Kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	fetched := make([]*Kernel, 0, len(j.kernels))
	for i, k := range j.kernels {
		j.say("kernel %d of %d: Debian's of %s", i+1, len(j.kernels), k.suite)
		one, err := Fetch(ctx, filepath.Join(cache, "sluice/kernels"), k.suite, func() {
			j.say("waiting for another one that fetches it")
		})
		if err != nil {
			return nil, err
		}
		fetched = append(fetched, one)
	}
	return fetched, nil
}

// suitesOn returns the suites of a kernel, as the flags pick them.
func (j *job) suitesOn(k kernel) []Suite {
	all := suites()
	if k.below {
		all = suitesBelow()
	}
	return slices.DeleteFunc(all, func(s Suite) bool {
		return j.short && !s.Short || !j.which.MatchString(s.Name())
	})
}

func (j *job) build(ctx context.Context) error {
	if err := os.MkdirAll(j.tests, 0o755); err != nil {
		return err
	}
	built := map[string]bool{}
	for _, k := range j.kernels {
		all := j.suitesOn(k)
		for i, s := range all {
			if built[s.Name()] {
				continue
			}
			built[s.Name()] = true
			j.say("building %s, %d of %d", s.Name(), i+1, len(all))
			if err := s.build(ctx, j.tests); err != nil {
				return err
			}
		}
	}
	return nil
}

// memory of a machine, in MiB: a lab has a control plane and several agents.
const memory = 4096

// runOn runs suites on a kernel. A machine that dies costs the suite that ran in it; what comes
// after runs in a new one.
func (j *job) runOn(ctx context.Context, k *Kernel, todo []Suite) (*Report, error) {
	out := filepath.Join(j.out, k.Suite)
	if err := errors.Join(os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return nil, err
	}
	begun := time.Now()
	report := &Report{Kernel: k}
	for done := 0; done < len(todo); {
		running := -1
		var failure error
		commands := make([]Command, 0, len(todo)-done)
		for _, s := range todo[done:] {
			commands = append(commands, s.command(j.root, j.tests, j.short, stretch()))
		}
		m := &Machine{Kernel: k, Out: out, Memory: memory}
		err := m.Run(ctx, commands, Watcher{
			Up: func(seconds int, version string) {
				report.Boot, report.Version = seconds, version
				j.say("%s: %s is up, after %d s", k.Suite, k.Release, seconds)
			},
			Begin: func(n int) { running = n },
			End: func(n, status, seconds int) {
				running = -1
				result, err := todo[done+n].result(ctx, out, status, seconds)
				failure = errors.Join(failure, err)
				if err == nil {
					report.Results = append(report.Results, result)
					j.say("%s: %d of %d: %s", k.Suite, done+n+1, len(todo), result)
				}
			},
		})
		switch {
		case ctx.Err() != nil || failure != nil:
			return nil, errors.Join(ctx.Err(), failure)
		case err != nil && running < 0:
			return nil, fmt.Errorf("%s: %w", k.Suite, err)
		case err != nil:
			result := &Result{Suite: todo[done+running].Name(), Died: true}
			report.Results = append(report.Results, result)
			j.say("%s: %d of %d: %s: %v", k.Suite, done+running+1, len(todo), result, err)
			done += running + 1
		default:
			done = len(todo)
		}
	}
	report.Total = time.Since(begun)
	return report, nil
}

// stretch is the factor of deadlines in the machines.
func stretch() int {
	if hasKVM() {
		return 2
	}
	return 10
}

// String is the result in a line of progress; what failed and what was skipped follow below it.
func (r *Result) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %d passed, %d failed, %d skipped, in %d s", r.Suite, len(r.Tests.Passed),
		len(r.Tests.Failed), len(r.Tests.Skipped), r.Seconds)
	switch {
	case r.Died:
		s.WriteString("; THE MACHINE DIED")
	case r.Status == 124:
		s.WriteString("; OUT OF TIME")
	case r.Status != 0 && len(r.Tests.Failed) == 0:
		fmt.Fprintf(&s, "; EXIT STATUS %d", r.Status)
	}
	if len(r.Tests.Failed) > 0 {
		s.WriteString("; FAILED: " + strings.Join(r.Tests.Failed, ", "))
	}
	return s.String()
}
