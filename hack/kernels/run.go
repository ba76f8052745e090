package main

import (
	"cmp"
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

// run builds what the flags ask for, runs it on the kernels, and returns what was seen there, also
// with an error: that says that something couldn't be done. Failed tests are in the reports.
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
	var todo []*shift
	for i, k := range fetched {
		if err := os.RemoveAll(filepath.Join(j.out, k.Suite)); err != nil {
			return nil, err
		}
		reports[i] = &Report{Kernel: k}
		todo = append(todo, shifts(reports[i], j.suitesOn(j.kernels[i]))...)
	}
	slices.SortStableFunc(todo, func(a, b *shift) int { return cmp.Compare(b.limit(), a.limit()) })
	queue := make(chan *shift, len(todo))
	for _, s := range todo {
		queue <- s
	}
	close(queue)
	failures := make(chan error, len(todo))
	var all sync.WaitGroup
	for range j.atOnce {
		all.Go(func() {
			for s := range queue {
				failures <- j.work(ctx, s)
			}
		})
	}
	all.Wait()
	close(failures)
	for f := range failures {
		err = errors.Join(err, f)
	}
	for _, s := range todo {
		s.report.add(s)
	}
	return reports, err
}

// A shift is what one machine does: suites of a kernel that run one after the other.
type shift struct {
	report *Report
	name   string // of its folder
	suites []Suite

	version string
	boot    int
	took    time.Duration
	results []*Result
}

// shifts has the suites of a kernel done by several machines, so that two of them at a time are
// busy to the end: by how many processors they need, whether they are labs, and whether they count
// instructions.
func shifts(report *Report, suites []Suite) []*shift {
	var all []*shift
	for _, s := range suites {
		name := "tables"
		switch {
		case s.Processors > 1:
			name = "floods"
		case s.Count != "":
			name = "counts"
		case s.Module != "":
			name = "labs"
		}
		i := slices.IndexFunc(all, func(s *shift) bool { return s.name == name })
		if i < 0 {
			i = len(all)
			all = append(all, &shift{report: report, name: name})
		}
		all[i].suites = append(all[i].suites, s)
	}
	return all
}

// counts reports whether the shift's machine counts instructions.
func (s *shift) counts() bool { return s.suites[0].Count != "" }

// limit is how long the shift's suites may take.
func (s *shift) limit() (sum time.Duration) {
	for i := range s.suites {
		sum += s.suites[i].Limit
	}
	return sum
}

// add takes what a shift has seen into the kernel's report.
func (r *Report) add(s *shift) {
	// A clock that counts doesn't tell how long a kernel takes to boot.
	if s.version != "" && (r.Version == "" || !s.counts()) {
		r.Version, r.Boot = s.version, s.boot
	}
	r.Total += s.took
	r.Results = append(r.Results, s.results...)
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
		j.say("kernel %d of %d: %s, fetched on %s", i+1, len(j.kernels), one.Package,
			one.Fetched.Format(time.DateOnly))
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
		return j.short && !s.Short || !j.which.MatchString(s.Name()) ||
			s.On != "" && s.On != k.suite
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
			if built[s.file()] {
				continue
			}
			built[s.file()] = true
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

// work does a shift. A machine that dies costs the suite that ran in it; what comes after runs in a
// new one. The error says that something couldn't be done.
func (j *job) work(ctx context.Context, s *shift) error {
	k := s.report.Kernel
	out := filepath.Join(j.out, k.Suite, s.name)
	if err := errors.Join(ctx.Err(), os.MkdirAll(out, 0o755)); err != nil {
		return err
	}
	begun := time.Now()
	defer func() { s.took = time.Since(begun) }()
	for done := 0; done < len(s.suites); {
		running, runningSince := -1, time.Now()
		var failure error
		commands := make([]Command, 0, len(s.suites)-done)
		for _, suite := range s.suites[done:] {
			commands = append(commands, suite.command(j.root, j.tests, j.short, suite.stretch()))
		}
		m := &Machine{Kernel: k, Out: out, Memory: memory,
			Processors: max(1, s.suites[0].Processors), KVM: hasKVM(), Counts: s.counts()}
		err := m.Run(ctx, commands, Watcher{
			Up: func(seconds int, version string) {
				s.boot, s.version = seconds, version
				j.say("%s %s: %s is up, after %d s", k.Suite, s.name, k.Release, seconds)
			},
			Begin: func(n int) { running, runningSince = n, time.Now() },
			End: func(n, status, seconds int) {
				running = -1
				if s.counts() {
					seconds = int(time.Since(runningSince).Seconds())
				}
				result, err := s.suites[done+n].result(ctx, out, status, seconds)
				failure = errors.Join(failure, err)
				if err == nil {
					s.results = append(s.results, result)
					j.say("%s %s, %d of %d: %s", k.Suite, s.name, done+n+1, len(s.suites), result)
				}
			},
		})
		switch {
		case ctx.Err() != nil || failure != nil:
			return errors.Join(ctx.Err(), failure)
		case err != nil && running < 0:
			return fmt.Errorf("%s %s: %w", k.Suite, s.name, err)
		case err != nil:
			result := &Result{Suite: s.suites[done+running].Name(), Died: true}
			s.results = append(s.results, result)
			j.say("%s %s, %d of %d: %s: %v", k.Suite, s.name, done+running+1, len(s.suites),
				result, err)
			done += running + 1
		default:
			done = len(s.suites)
		}
	}
	return nil
}

// stretch is the factor of the suite's deadlines in its machine.
func (s *Suite) stretch() int {
	if s.Count == "" && hasKVM() {
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
