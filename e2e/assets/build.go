package assets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progressEvery is how often a build that goes on says so.
const progressEvery = 5 * time.Second

// small are the ldflags of programs that nobody debugs.
const small = "-s -w"

// goBuild is a run of go build.
type goBuild struct {
	what     string // for people
	module   string // folder to build in
	packages []string
	output   string // as for go build -o: a file, or a folder with a slash at its end
	ldflags  string
}

// withoutPackages is what go build -v says but for the packages that it begins with.
func withoutPackages(output string) string {
	var out strings.Builder
	for line := range strings.Lines(output) {
		if strings.ContainsAny(strings.TrimSpace(line), " :") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func (b goBuild) env() []string { return append(os.Environ(), "CGO_ENABLED=0") }

// alone runs the build while no other process runs it for the same thing.
func (b goBuild) alone(ctx context.Context, progress io.Writer, thing string) error {
	unlock, err := lock(ctx, progress, thing, b.what)
	if err != nil {
		return err
	}
	defer unlock()
	return b.run(ctx, progress)
}

func (b goBuild) run(ctx context.Context, progress io.Writer) error {
	if err := os.MkdirAll(filepath.Dir(b.output), 0o755); err != nil {
		return err
	}
	args := append([]string{"build", "-v", "-trimpath", "-ldflags", b.ldflags, "-o", b.output},
		b.packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = b.module, b.env()
	var output bytes.Buffer
	packages := buildProgress{programs: len(b.packages)}
	both := io.MultiWriter(&output, &packages)
	cmd.Stdout, cmd.Stderr = both, both    // one value, so that one goroutine writes
	ctx, cancel := context.WithCancel(ctx) // for who asks what is left
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	ask := sync.OnceFunc(func() {
		asking.Go(func() {
			if sizes, err := b.left(ctx); err == nil { // it is built all the same
				packages.expect(sizes, time.Now())
			}
		})
	})
	speak := func(sofar time.Duration) {
		ask()
		linef(progress, "building %s: %s so far%s", b.what, sofar, packages.text(time.Now()))
	}
	if err := during(speak, cmd.Run); err != nil {
		return fmt.Errorf("building %s: %w\n%s", b.what, err, withoutPackages(output.String()))
	}
	return nil
}

// during has speak say, every few seconds, that what do does goes on, and since when.
func during(speak func(sofar time.Duration), do func() error) error {
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- do() }()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			speak(time.Since(start).Round(time.Second))
		case err := <-done:
			return err
		}
	}
}

// cacheFolder is where what is built is kept.
func cacheFolder() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir() // a service has no home
	}
	dir = filepath.Join(dir, "sluice")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	return dir, nil
}

// lock waits until no other process makes the same thing, which has a file of that name beside it.
// Lines about the wait go to progress. Processes that make something else, or find what they need,
// don't wait.
func lock(ctx context.Context, progress io.Writer, thing, what string) (unlock func(), err error) {
	file, err := os.OpenFile(thing+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", what, err)
	}
	if err := waitForLock(ctx, file, progress, what); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("locking %s: %w", file.Name(), err)
	}
	return func() { _ = file.Close() }, nil // which unlocks it
}

func waitForLock(ctx context.Context, file *os.File, progress io.Writer, what string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for reported := start; ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Since(reported) > progressEvery {
			reported = time.Now()
			linef(progress, "waiting for another process that builds %s: %s so far", what,
				time.Since(start).Round(time.Second))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// linef writes one line for people.
func linef(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...)
}

// lastLine is the last line of a program's output, which says most.
func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return lines[len(lines)-1]
}
