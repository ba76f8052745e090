package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMarks: what a machine says of itself is heard, whatever its kernel writes between.
func TestMarks(t *testing.T) {
	t.Parallel()
	var heard []string
	f := &follower{commands: make([]Command, 2), limit: time.AfterFunc(time.Hour, func() {}),
		slow: 1, watcher: Watcher{
			Up:    func(_ int, version string) { heard = append(heard, "up", version) },
			Begin: func(int) { heard = append(heard, "begin") },
			End: func(n, status, seconds int) {
				if n == 0 && status == 0 && seconds == 12 {
					heard = append(heard, "passed")
				}
				if n == 1 && status == 124 && seconds == 60 {
					heard = append(heard, "out of time")
				}
			},
		}}
	f.read(strings.NewReader("\x1bcBooting from ROM\r\n@up 5 #1 SMP Debian 6.1.176-1\r\n" +
		"@begin 0\r\n[   8.1] nf_conntrack: a word of the kernel\r\n@end 0 0 12\r\n" +
		"@begin 1\r\n@begin 7\r\n@begin x\r\n@end\r\n@end 7 0 1\r\n@end 1 124 60\r\n[  9.2] " +
		"reboot: Power down"))
	want := "up,#1 SMP Debian 6.1.176-1,begin,passed,begin,out of time"
	if got := strings.Join(heard, ","); got != want || f.ended != 2 {
		t.Errorf("heard %s, %d ended; want %s", got, f.ended, want)
	}
}

// TestScript: the script is one that a shell takes, and each word of it stays one, whatever is in
// it.
func TestScript(t *testing.T) {
	t.Parallel()
	m := &Machine{Kernel: &Kernel{Modules: "/a folder/it's modules"}, Out: t.TempDir()}
	script := m.script([]Command{{Dir: "/a $(touch x) b", Line: `echo 'a "b'; false`,
		Log: "a.log", Limit: time.Minute}})
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", script).
		CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v: %s\n%s", err, out, script)
	}
	const hostile = `it's $HOME "and" $(more) \`
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+quote(hostile)).Output()
	if err != nil || string(out) != hostile {
		t.Errorf("got %q, error %v, want %q", out, err, hostile)
	}
}

// TestStatus: the script tells each command's own exit status, and that of one that is out of time.
func TestStatus(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	commands := []Command{
		{Dir: "/", Line: "echo said; exit 0", Log: "a", Limit: time.Minute},
		{Dir: "/", Line: "exit 3", Log: "b", Limit: time.Minute},
		{Dir: "/", Line: "sleep 60", Log: "c", Limit: time.Second},
		{Dir: "/no such folder", Line: "true", Log: "d", Limit: time.Minute},
	}
	console, err := exec.CommandContext(t.Context(), "sh", "-c", runScript(commands, out)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var statuses []int
	f := &follower{commands: commands, limit: time.AfterFunc(time.Hour, func() {}),
		watcher: Watcher{Begin: func(int) {},
			End: func(_, status, _ int) { statuses = append(statuses, status) }}}
	f.read(bytes.NewReader(console))
	if len(statuses) != 4 || statuses[0] != 0 || statuses[1] != 3 || statuses[2] != 124 ||
		statuses[3] == 0 {
		t.Errorf("got %v, want 0, 3, 124 and a failure", statuses)
	}
	if said, err := os.ReadFile(filepath.Join(out, "a")); err != nil || string(said) != "said\n" {
		t.Errorf("got %q, error %v", said, err)
	}
}

// TestCollect: what tests say becomes counts, reasons and figures.
func TestCollect(t *testing.T) {
	t.Parallel()
	log := "\x16=== RUN   TestA\n\x16=== RUN   TestA/part\n    a_test.go:7: proof: 3 cases\n" +
		"\x16--- PASS: TestA (0.10s)\n    \x16--- PASS: TestA/part (0.10s)\n" +
		"\x16=== RUN   TestB\n    b_test.go:12: needs the module sctp, which this kernel lacks\n" +
		"\x16--- SKIP: TestB (0.00s)\n\x16=== RUN   TestC\n    c_test.go:3: got 1, want 2\n" +
		"\x16--- FAIL: TestC (0.00s)\n\x16FAIL\n"
	tests, err := readTests(t.Context(), []byte(log))
	if err != nil {
		t.Fatal(err)
	}
	skipped := map[string]string{"TestB": "needs the module sctp, which this kernel lacks"}
	if len(tests.Passed) != 1 || tests.Passed[0] != "TestA" ||
		len(tests.Failed) != 1 || tests.Failed[0] != "TestC" ||
		!maps.Equal(tests.Skipped, skipped) ||
		len(tests.Figures) != 1 || tests.Figures[0] != "3 cases" {
		t.Errorf("got %+v", tests)
	}
}

// TestReadBenchmark: the results of its parts become figures, and what else is printed doesn't. It
// passes only if there are any, and none failed.
func TestReadBenchmark(t *testing.T) {
	t.Parallel()
	const result = "BenchmarkA/one-part  \t       1\t     33310 instructions/datagram\t" +
		"         1.000 of-tracked\n"
	for name, tc := range map[string]struct {
		log                     string
		figures, passed, failed int
	}{
		"passed":        {"goos: linux\nBenchmarkA \nBenchmarkA/no result\n" + result + "PASS\n", 1, 1, 0},
		"failed":        {result + "--- FAIL: BenchmarkA\n    a_test.go:7: no\nFAIL\n", 1, 0, 1},
		"a part failed": {"BenchmarkA\n    --- FAIL: BenchmarkA/one-part\nFAIL\n", 0, 0, 1},
		"skipped":       {"BenchmarkA\n--- SKIP: BenchmarkA\nPASS\n", 0, 0, 0},
		"another":       {strings.ReplaceAll(result, "kA", "kB"), 0, 0, 0},
	} {
		tests := readBenchmark("BenchmarkA", tc.log)
		if len(tests.Figures) != tc.figures || len(tests.Passed) != tc.passed ||
			len(tests.Failed) != tc.failed {
			t.Errorf("%s: got %+v", name, tests)
		}
	}
	const want = "BenchmarkA/one-part: 33310 instructions/datagram, 1.000 of-tracked"
	if got := readBenchmark("BenchmarkA", result).Figures[0]; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestMachines: a processor is emulated where there is no KVM, and where it counts instructions.
func TestMachines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ kvm, counts, emulated bool }{
		{false, false, true}, {true, false, false}, {false, true, true}, {true, true, true},
	} {
		m := &Machine{Kernel: &Kernel{}, Processors: 1, KVM: tc.kvm, Counts: tc.counts}
		line := strings.Join(m.arguments(), " ")
		if strings.Contains(line, "-icount shift=0") != tc.counts ||
			strings.Contains(line, "-accel tcg") != tc.emulated ||
			strings.Contains(line, "-enable-kvm") == tc.emulated {
			t.Errorf("%+v: qemu %s", tc, line)
		}
	}
}

// TestCommands: tests run as tests, and what counts runs as a benchmark that knows.
func TestCommands(t *testing.T) {
	t.Parallel()
	tests := Suite{Package: "link", Run: "^TestA$", Limit: time.Minute}
	count := Suite{Module: "e2e", Package: "bench", Count: "BenchmarkA", Limit: time.Minute}
	for line, want := range map[string][]string{
		tests.command("/r", "/t", false, 2).Line: {"SLUICE_STRETCH=2 ", " '/t/link' ",
			" -test.run='^TestA$'", " -test.v=test2json "},
		count.command("/r", "/t", false, 2).Line: {"SLUICE_INSTRUCTIONS=1 ", "SLUICE_STRETCH=2 ",
			" '/t/e2e-bench' ", " -test.run='^$' ", " -test.benchtime=1x ",
			" -test.bench='^BenchmarkA$'"},
	} {
		for _, part := range want {
			if !strings.Contains(line, part) {
				t.Errorf("%q isn't in %s", part, line)
			}
		}
	}
}

// TestCountingClock: how long a kernel takes to boot is told by a clock that doesn't count.
func TestCountingClock(t *testing.T) {
	t.Parallel()
	plain := &shift{suites: []Suite{{}}, version: "v", boot: 7}
	counts := &shift{suites: []Suite{{Count: "BenchmarkA"}}, version: "v", boot: 4}
	for _, order := range [][]*shift{{plain}, {plain, counts}, {counts, plain}} {
		r := &Report{}
		for _, s := range order {
			r.add(s)
		}
		if r.Boot != plain.boot || r.Version != "v" {
			t.Errorf("up after %d s, want %d", r.Boot, plain.boot)
		}
	}
}

// TestOK: only tests that ran and passed are a success.
func TestOK(t *testing.T) {
	t.Parallel()
	passed := Tests{Passed: []string{"TestA"}}
	for name, tc := range map[string]struct {
		result Result
		want   bool
	}{
		"passed":            {Result{Tests: passed}, true},
		"nothing ran":       {Result{}, false},
		"failed":            {Result{Status: 1, Tests: Tests{Failed: []string{"TestB"}}}, false},
		"a part didn't end": {Result{Status: 124, Tests: passed}, false},
		"the machine died":  {Result{Died: true, Tests: passed}, false},
		"everything skipped": {
			Result{Tests: Tests{Skipped: map[string]string{"TestA": "no"}}}, false},
		"a panic after a pass": {Result{Status: 2, Tests: passed}, false},
	} {
		if got := tc.result.OK(); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// TestTable: the table has each result, and each reason of a skip once.
func TestTable(t *testing.T) {
	t.Parallel()
	result := func() *Result {
		return &Result{Suite: "nft/table", Seconds: 7, Tests: Tests{Passed: []string{"TestA"},
			Skipped: map[string]string{"TestB": "tables with an owner came with 6.9"},
			Figures: []string{"3 cases"}}}
	}
	failed := &Result{Suite: "e2e/enforce", Tests: Tests{Failed: []string{"TestC"}}, Status: 1}
	got := table([]*Report{
		{Kernel: &Kernel{Suite: "one", Release: "1.0", Package: "1.0-1"},
			Results: []*Result{result()}},
		{Kernel: &Kernel{Suite: "two", Release: "2.0", Package: "2.0-1"},
			Results: []*Result{result(), failed, {Suite: "link", Died: true}}},
	})
	for _, want := range []string{
		"| **1.0** (Debian's one, 1.0-1) |", "| | nft/table | 1 | 0 | 1 | 7 s |\n",
		"| | e2e/enforce | 0 | 1: `TestC` | 0 | 0 s |\n", "| | link | 0 | didn't end | 0 | 0 s |\n",
		"- nft/table `TestB`: tables with an owner came with 6.9 (one, two)\n",
		"Figures on 1.0:\n\n- nft/table: 3 cases\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q isn't in\n%s", want, got)
		}
	}
}

// TestInsert: the table takes the place of the last one, and nothing else changes; twice is once.
func TestInsert(t *testing.T) {
	t.Parallel()
	got := "before\n" + tableBegin + "old\n" + tableEnd + "after\n"
	want := "before\n" + tableBegin + "\n| new |\n\n" + tableEnd + "after\n"
	for range 2 {
		var err error
		if got, err = insert(got, "| new |\n"); err != nil || got != want {
			t.Fatalf("got %q, error %v, want %q", got, err, want)
		}
	}
	if _, err := insert("nothing marked", "x"); err == nil {
		t.Error("a document without marks is taken")
	}
}

// TestBadArguments: each is refused, and the message names it and what is expected.
func TestBadArguments(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"slackware", `kernel "slackware" isn't one of bullseye, `},
		{"-at-once 0", "-at-once is 0; it has to be 1 or more"},
		{"-suites (", "-suites: error parsing regexp"},
		{"-suites nothing bookworm", `-suites: no suite has a name like "nothing"`},
	} {
		_, err := parse(strings.Fields(tc.args))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.args, err, tc.want)
		}
	}
}

// parts are those of a test, in an expression.
var parts = regexp.MustCompile(`/\^\([^)]*\)\$`)

// TestSuitesExist: what runs on the kernels are packages with tests that are there.
func TestSuitesExist(t *testing.T) {
	t.Parallel()
	for _, s := range append(suites(), suitesBelow()...) {
		if s.Program {
			continue
		}
		kind := "Test"
		if s.Count != "" {
			kind = "Benchmark"
		}
		list := exec.CommandContext(t.Context(), "grep", "-rhoE", "^func "+kind+`\w+`,
			filepath.Join("../..", s.Module, s.Package), "--include=*_test.go")
		names, err := list.Output()
		if err != nil {
			t.Errorf("%s has no tests: %v", s.Name(), err)
		}
		for _, short := range []bool{false, true} {
			tests := bytes.ReplaceAll(names, []byte("func "), nil)
			expression := "(?m)" + parts.ReplaceAllString(s.expression(short), "")
			if which, err := regexp.Compile(expression); err != nil || !which.Match(tests) {
				t.Errorf("%s: no test has a name like %q, error %v", s.Name(), expression, err)
			}
		}
	}
}

// TestShifts: each suite is in one shift, with those that need a machine like its own.
func TestShifts(t *testing.T) {
	t.Parallel()
	report, all := &Report{}, suites()
	var names []string
	count := 0
	for _, s := range shifts(report, all) {
		names = append(names, s.name)
		count += len(s.suites)
		for _, suite := range s.suites {
			isCount, isFlood := suite.Count != "", suite.Processors > 1
			isLab := suite.Module != "" && !isCount
			if isLab != (s.name == "labs") || isFlood != (s.name == "floods") ||
				isCount != (s.name == "counts") {
				t.Errorf("%s is in the shift %s", suite.Name(), s.name)
			}
		}
		s.took, s.results = time.Minute, make([]*Result, len(s.suites))
		report.add(s)
	}
	if strings.Join(names, ",") != "tables,floods,labs,counts" || count != len(all) {
		t.Errorf("got %v with %d of %d suites", names, count, len(all))
	}
	if report.Total != 4*time.Minute || len(report.Results) != len(all) {
		t.Errorf("%d results in %s", len(report.Results), report.Total)
	}
}
