package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Suite is a package's tests, or some of them, or a program, that runs on kernels.
type Suite struct {
	Module  string // the folder of its module
	Package string // its folder in the module
	Run     string // a regular expression of tests; empty: all
	// Count is a benchmark that runs instead of tests, once, in a machine whose clock counts
	// instructions. It isn't part of the short form.
	Count   string
	Program bool     // it is a program, and passes if it exits with 0
	Args    []string // its arguments, or more of a test program's
	// Short says that it is part of the short form too, with the tests that ShortRun picks.
	Short    bool
	ShortRun string
	// On is the one release whose kernel it runs on; all if empty.
	On string
	// Processors that its machine has; 1 if zero.
	Processors int
	// Limit is by the machine's clock, emulated, on a busy machine.
	Limit time.Duration
}

// Name is the suite's name in lines and tables.
func (s *Suite) Name() string {
	if s.Processors > 1 {
		return fmt.Sprintf("%s, %d processors", s.Package, s.Processors)
	}
	return filepath.Join(s.Module, s.Package)
}

// file is the name of its program.
func (s *Suite) file() string {
	return strings.ReplaceAll(filepath.Join(s.Module, s.Package), "/", "-")
}

// suites returns what runs on a kernel that Sluice supports. The kernel's own tables come first,
// then packets, then labs of several nodes.
func suites() []Suite {
	const usual = 10 * time.Minute // it ends what hangs
	return []Suite{
		{Package: "nft/wire", Limit: usual, Short: true},
		{Package: "nft/table", Limit: usual, Short: true,
			ShortRun: "Owned|Unowned|Batch|Delete|Diff", Args: []string{"-test.skip=^TestFlood"}},
		{Package: "nft/table", Processors: 2, Run: "^TestFlood", Limit: 2 * usual},
		{Package: "ruleset", Processors: 2, Run: "^TestFloodWhileNodesComeAndGo$", Limit: usual},
		{Package: "nft/others", Limit: usual},
		{Package: "conntrack", Limit: usual, Short: true},
		{Package: "nflog", Limit: usual},
		{Package: "link", Limit: usual, Short: true},
		{Package: "overlay", Args: []string{"-rapid.checks=20"}, Limit: usual},
		{Package: "overlay/reach", Limit: usual},
		{Package: "cni/podlink", Limit: usual},
		{Package: "cni/server", Limit: usual},
		{Package: "cmd/sluice-agent", Run: "^(TestCheck|TestWhatAKernelLacks|TestWithoutTheRight)",
			Limit: usual},
		// On one: what it finds is mostly what others have left. cmd/sluice-agent's tests of check
		// ask each kernel.
		{Package: "preflight", On: "bookworm", Limit: usual},
		{Package: "ruleset", Limit: usual, Short: true,
			ShortRun: "^TestPackets$/^(replies|selector_peers|ipBlock_with_except)$|" +
				"^TestListingReadsBack$", Args: []string{"-test.skip=^TestFlood"}},
		{Package: "enforcer", Limit: usual, Short: true,
			ShortRun: "^(TestTighteningCuts|TestRepair|TestOwnedTableHolds)$",
			// What is about size takes long, and is the same on each kernel.
			Args: []string{"-test.skip=^(TestCutAmongMany|TestCrowdsKeepNobodyWaiting|" +
				"TestDiesAmongParts|TestOthersDontWaitForCostlyPolicies)$"}},
		{Package: "verify", Run: "Kernel", Args: []string{"-rapid.checks=5"},
			Limit: usual},
		{Module: "e2e", Package: "cmd/demo", Program: true, Args: []string{"../config/samples"},
			Limit: 2 * usual},
		// On one: each of kube-proxy's three modes takes minutes to start, as it first removes what
		// the others may have left.
		{Module: "e2e", Package: "foreign", Run: "^(TestKubeProxy|TestBridgeModule)$",
			On: "bookworm", Limit: 3 * usual},
		{Module: "e2e", Package: "enforce", Run: "^(TestStarts|TestEstablished)$",
			Limit: 3 * usual},
		{Module: "e2e", Package: "bench", Count: "BenchmarkInstructions", On: "trixie-backports",
			Limit: 5 * time.Minute},
	}
}

// suitesBelow returns what runs on a kernel older than what Sluice needs: the agent and the init
// container refuse it, and change nothing.
func suitesBelow() []Suite {
	return []Suite{{Package: "cmd/sluice-agent", Run: "^TestOldKernelIsLeftAsItIs$",
		Limit: 3 * time.Minute}}
}

// expression is which of the suite's tests, or benchmarks, run.
func (s *Suite) expression(short bool) string {
	if s.Count != "" {
		return "^" + s.Count + "$"
	}
	if short && s.ShortRun != "" {
		return s.ShortRun
	}
	return s.Run
}

// binary is the file that build writes for the suite.
func (s *Suite) binary(folder string) string { return filepath.Join(folder, s.file()) }

// build compiles the suite for the machines, without the race detector: emulation is slow enough.
func (s *Suite) build(ctx context.Context, folder string) error {
	args := []string{"test", "-C", filepath.Join(".", s.Module), "-c", "-o", s.binary(folder)}
	if s.Program {
		args = []string{"build", "-C", filepath.Join(".", s.Module), "-o", s.binary(folder)}
	}
	_, err := command(ctx, "", "go", append(args, "./"+s.Package)...)
	return err
}

// command is what runs the suite in a machine; stretch is the factor of deadlines.
func (s *Suite) command(root, folder string, short bool, stretch int) Command {
	limit := s.Limit
	line := fmt.Sprintf("SLUICE_STRETCH=%d SLUICE_PROGRAMS_BUILT=1 SLUICE_KERNEL=own %s", stretch,
		quote(s.binary(folder)))
	dir := filepath.Join(root, s.Module, s.Package)
	switch {
	case s.Program:
		dir = filepath.Join(root, s.Module)
	case s.Count != "":
		line = fmt.Sprintf(
			"SLUICE_INSTRUCTIONS=1 %s -test.run='^$' -test.benchtime=1x -test.bench=%s",
			line, quote(s.expression(short)))
	default:
		line += fmt.Sprintf(" -test.v=test2json -test.timeout=%s -test.run=%s",
			limit-10*time.Second,
			quote(s.expression(short)))
	}
	args := make([]string, 0, len(s.Args))
	for _, a := range s.Args {
		args = append(args, quote(a))
	}
	line += " " + strings.Join(args, " ")
	return Command{Dir: dir, Line: line, Log: s.file() + ".log", Limit: limit}
}

// result reads what the suite left in the folder of a machine.
func (s *Suite) result(ctx context.Context, out string, status, seconds int) (*Result, error) {
	r := &Result{Suite: s.Name(), Status: status, Seconds: seconds}
	log, err := os.ReadFile(filepath.Join(out, s.file()+".log"))
	if err != nil {
		return nil, err
	}
	if s.Program {
		if status == 0 {
			r.Tests.Passed = []string{s.Name()}
		}
		return r, nil
	}
	if s.Count != "" {
		r.Tests = readBenchmark(s.Count, string(log))
		return r, nil
	}
	r.Tests, err = readTests(ctx, log)
	return r, err
}
