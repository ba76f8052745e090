// Kernels runs Sluice's tests on the kernels that users boot: those of Debian's releases, each in a
// virtual machine.
//
//	go run ./hack/kernels [-short] [-suites REGEXP] [-at-once N] [KERNEL…]    default: all kernels
//
// A kernel is named by its suite of Debian, such as bookworm (6.1), for amd64. Its package is
// downloaded once, and unpacked into the user's cache (sluice/kernels): never installed. Remove the
// folder there to have the newest again. The machine has the files of the one that it runs on,
// read-only, with a file system in memory above them: so it needs no image, runs the test programs
// that are built here, and leaves nothing behind. qemu emulates its processor where KVM can't be
// had, which makes it 5 to 20 times slower: tests stretch their deadlines by a factor (package
// test/stretch).
//
// One suite is a benchmark whose machine counts instructions: its clock goes by them.
//
// A machine has 4 GiB of memory, and -at-once of them run at a time.
//
// Results, logs and consoles are in bin/kernels. With all kernels in the long form, the table in
// docs/kernels.md is written anew.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A job is what the flags say.
type job struct {
	short   bool
	which   *regexp.Regexp // of suites
	atOnce  int
	kernels []kernel

	root, out, tests string // the repository, bin/kernels, and the folder of built programs
	say              func(format string, args ...any)
}

func parse(args []string) (*job, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the machine's architecture is %s; the kernels are for amd64",
			runtime.GOARCH)
	}
	flags := flag.NewFlagSet("kernels", flag.ContinueOnError)
	j := &job{}
	flags.BoolVar(&j.short, "short", false, "run the short form of the suites")
	flags.IntVar(&j.atOnce, "at-once", 2, "how many machines run at a time")
	which := flags.String("suites", "", "a regular expression of suites to run")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if j.which, err = regexp.Compile(*which); err != nil {
		return nil, fmt.Errorf("-suites: %w", err)
	}
	if j.atOnce < 1 {
		return nil, fmt.Errorf("-at-once is %d; it has to be 1 or more", j.atOnce)
	}
	for _, name := range flags.Args() {
		if !slices.Contains(names(), name) {
			return nil, fmt.Errorf("kernel %q isn't one of %s", name, strings.Join(names(), ", "))
		}
	}
	for _, k := range kernels {
		if flags.NArg() == 0 || slices.Contains(flags.Args(), k.suite) {
			j.kernels = append(j.kernels, k)
		}
	}
	if !slices.ContainsFunc(j.kernels, func(k kernel) bool { return len(j.suitesOn(k)) > 0 }) {
		return nil, fmt.Errorf("-suites: no suite has a name like %q", *which)
	}
	return j, nil
}

// names are those by which kernels are picked.
func names() []string {
	all := make([]string, 0, len(kernels))
	for _, k := range kernels {
		all = append(all, k.suite)
	}
	return all
}

func run(ctx context.Context, args []string) error {
	j, err := parse(args)
	if err != nil {
		return err
	}
	if j.root, err = os.Getwd(); err != nil {
		return err
	}
	begun := time.Now()
	j.out = filepath.Join(j.root, "bin/kernels")
	j.tests = filepath.Join(j.out, "tests")
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	var one sync.Mutex
	j.say = func(format string, args ...any) {
		one.Lock()
		defer one.Unlock()
		fmt.Printf("==> "+format+" (after %d s)\n",
			append(args, int(time.Since(begun).Seconds()))...)
	}
	reports, err := j.run(ctx)
	text := table(reports)
	fmt.Print("\n" + text)
	if err != nil {
		return err
	}
	if j.whole() {
		if err := writeDocument(text); err != nil {
			return err
		}
	}
	for _, r := range reports {
		if !r.OK() {
			return fmt.Errorf("tests failed on %s; their output is in %s", r.Kernel.Release,
				filepath.Join(j.out, r.Kernel.Suite))
		}
	}
	return nil
}

// whole reports whether everything runs.
func (j *job) whole() bool {
	return !j.short && len(j.kernels) == len(kernels) && j.which.String() == ""
}

// document has the table of the last run of everything.
const document = "docs/kernels.md"

func writeDocument(table string) error {
	old, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	text, err := insert(string(old), table)
	if err != nil {
		return fmt.Errorf("writing the table into %s: %w", document, err)
	}
	return os.WriteFile(document, []byte(text), 0o644) //nolint:gosec // everybody may read it
}
