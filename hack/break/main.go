// Break breaks the code on purpose, one guarantee after the other, and fails unless the test behind
// each guarantee notices.
//
//	go run ./hack/break [REGEXP]
//
// A break is a file hack/breaks/NN-name.yaml: the guarantee, as a sentence of docs/guarantees.md,
// the test that has to notice, and what to change: in which file which text, that has to stand
// there exactly once, becomes which other. So a break outlives a move of its file (by one line) and
// every change around its text, and one that no longer fits is an error (TestBreaksFit), never left
// out.
//
// All happens in one copy of the files that git tracks or would, in which each break is made and
// taken back. Before, each test must pass there. A break counts as caught only if a test ran and
// failed: a copy that doesn't compile, an expression that matches no test, and a test that is
// skipped are errors of the break.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, args []string) error {
	which := regexp.MustCompile(".")
	if len(args) > 0 {
		var err error
		if which, err = regexp.Compile(args[0]); err != nil {
			return err
		}
	}
	breaks, err := Load("hack/breaks")
	if err != nil {
		return err
	}
	breaks = slices.DeleteFunc(breaks, func(b Break) bool { return !which.MatchString(b.Name) })
	if len(breaks) == 0 {
		return fmt.Errorf("no break has a name like %s", which)
	}
	copied, err := copyTree(ctx)
	if err != nil {
		return fmt.Errorf("copying the tracked files: %w", err)
	}
	defer os.RemoveAll(copied)
	return tryAll(ctx, w, copied, breaks)
}

// copyTree copies what git tracks or would, as it is now. It is always the same folder, so that the
// build cache serves the next run too.
func copyTree(ctx context.Context) (string, error) {
	target, err := filepath.Abs("bin/breaks")
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(target); err != nil {
		return "", err
	}
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others",
		"--exclude-standard").Output()
	if err != nil {
		return "", err
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if err := copyFile(string(name), filepath.Join(target, string(name))); err != nil &&
			!errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return target, nil
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}

func tryAll(ctx context.Context, w io.Writer, root string, breaks []Break) error {
	sound := map[Test]result{} // what each test says of the copy as it is
	var caught strings.Builder
	wrong := 0
	for i, b := range breaks {
		begun := time.Now()
		without, known := sound[b.Test]
		if !known {
			without = attempt(ctx, root, b.Test)
			sound[b.Test] = without
		}
		by, err := try(ctx, root, b, without)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			wrong++
			fmt.Fprintf(w, "!! %d of %d, %s: %v\n", i+1, len(breaks), b.Name, err)
			continue
		}
		fmt.Fprintf(w, "%d of %d, %s: caught by %s in %d s\n", i+1, len(breaks), b.Name, by,
			int(time.Since(begun).Seconds()))
		fmt.Fprintf(&caught, "%s\n    %s: %s\n", b.Guarantee, b.Test.Package, by)
	}
	fmt.Fprintf(w, "\n%s\n%d breaks caught, %d not\n", caught.String(), len(breaks)-wrong, wrong)
	if wrong > 0 {
		return fmt.Errorf("%d breaks aren't caught", wrong)
	}
	return nil
}

// try makes the break and says which tests noticed.
func try(ctx context.Context, root string, b Break, without result) (by string, err error) {
	if without.outcome != passed {
		return "", fmt.Errorf("without the break, %v %s\n%s", b.Test, without.outcome,
			tail(without.output))
	}
	undo, err := b.Apply(root)
	if err != nil {
		return "", err
	}
	var with result
	unbuilt := builds(ctx, root, &b)
	if unbuilt == nil {
		with = attempt(ctx, root, b.Test)
	}
	if err := undo(); err != nil {
		return "", fmt.Errorf("taking the break back: %w", err)
	}
	if unbuilt != nil {
		return "", unbuilt
	}
	if with.outcome != failed {
		return "", fmt.Errorf("with the break, %v %s: %s\n%s", b.Test, with.outcome, b.Guarantee,
			tail(with.output))
	}
	whole := slices.DeleteFunc(with.by, func(test string) bool {
		return strings.Contains(test, "/")
	})
	return strings.Join(whole, " "), nil
}

// tail is the last lines of an output, set in.
func tail(output string) string {
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	lines = lines[max(0, len(lines)-15):]
	return "     " + strings.Join(lines, "\n     ")
}
