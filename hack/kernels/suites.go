package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Suite is a package's tests, or some of them, or a program, that runs on each kernel.
type Suite struct {
	Module  string // the folder of its module
	Package string // its folder in the module
	Run     string // a regular expression of tests; empty: all
	Program bool   // it is a program, and passes if it exits with 0
	Args    string
	// Short says that it is part of the short form too, with the tests that ShortRun picks.
	Short    bool
	ShortRun string
	Limit    time.Duration // emulated, on a busy machine
}

// Name is the suite's name in lines and tables.
func (s *Suite) Name() string { return filepath.Join(s.Module, s.Package) }

// file is the suite's name as a file.
func (s *Suite) file() string { return strings.ReplaceAll(s.Name(), "/", "-") }

// suites returns what runs on a kernel that Sluice supports. The kernel's own tables come first,
// then packets, then labs of several nodes.
func suites() []Suite {
	const minute = time.Minute
	return []Suite{
		{Package: "nft/wire", Limit: 3 * minute, Short: true},
		{Package: "nft/table", Limit: 8 * minute, Short: true,
			ShortRun: "Owned|Unowned|Batch|Delete|Diff"},
		{Package: "nft/others", Limit: 5 * minute},
		{Package: "conntrack", Limit: 3 * minute, Short: true},
		{Package: "nflog", Limit: 3 * minute, Short: true},
		{Package: "link", Limit: 3 * minute, Short: true},
		{Package: "overlay", Limit: 6 * minute},
		{Package: "overlay/reach", Limit: 4 * minute},
		{Package: "cni/podlink", Limit: 6 * minute},
		{Package: "cni/server", Limit: 6 * minute},
		{Package: "cmd/sluice-agent", Run: "^(TestCheck|TestWhatAKernelLacks|TestWithoutTheRight)",
			Limit: 4 * minute},
		{Package: "preflight", Limit: 6 * minute},
		{Package: "ruleset", Limit: 10 * minute, Short: true,
			ShortRun: "^TestPackets$/^(replies|selector_peers|ipBlock_with_except)$|" +
				"^TestListingReadsBack$"},
		{Package: "enforcer", Limit: 8 * minute, Short: true,
			ShortRun: "^(TestTighteningCuts|TestRepair|TestOwnedTableHolds)$"},
		{Package: "verify", Run: "Kernel", Limit: 5 * minute},
		{Module: "e2e", Package: "cmd/demo", Program: true, Args: "../config/samples",
			Limit: 15 * minute, Short: true},
		{Module: "e2e", Package: "foreign", Run: "^TestKubeProxy$", Limit: 10 * minute},
		{Module: "e2e", Package: "enforce", Run: "^(TestStarts|TestEstablished)$",
			Limit: 20 * minute},
	}
}

// suitesBelow returns what runs on a kernel older than what Sluice needs: the agent and the init
// container refuse it, and change nothing.
func suitesBelow() []Suite {
	return []Suite{{Package: "cmd/sluice-agent", Run: "^TestOldKernelIsLeftAsItIs$",
		Limit: 3 * time.Minute}}
}

// expression is which of the suite's tests run.
func (s *Suite) expression(short bool) string {
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
	line := fmt.Sprintf("SLUICE_STRETCH=%d SLUICE_PROGRAMS_BUILT=1 %s", stretch,
		quote(s.binary(folder)))
	dir := filepath.Join(root, s.Module, s.Package)
	if s.Program {
		dir = filepath.Join(root, s.Module)
		line += " " + s.Args
	} else {
		line += fmt.Sprintf(" -test.v=test2json -test.timeout=%s -test.run=%s",
			limit-10*time.Second,
			quote(s.expression(short)))
	}
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
	r.Tests, err = readTests(ctx, log)
	return r, err
}
