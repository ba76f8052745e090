package install

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// installer is the environment of a process that installs programs by turns: where to, and which.
const installer = "SLUICE_TEST_INSTALL"

// TestInstallerProcess isn't a test, but what other tests run as a process of its own: it installs
// until it is killed, or so many rounds.
func TestInstallerProcess(t *testing.T) {
	words := strings.Split(os.Getenv(installer), "\n")
	if len(words) != 4 {
		t.Skip("run by other tests only")
	}
	var rounds int
	if _, err := fmt.Sscan(words[3], &rounds); err != nil {
		t.Fatal(err)
	}
	for i := range rounds {
		if changed, err := Plugin(words[1+i%2], words[0]); err != nil || !changed {
			t.Fatalf("round %d: changed: %t, error %v", i, changed, err)
		}
	}
}

// startInstaller starts a process that installs b, a, b, a …
func startInstaller(t *testing.T, dir, a, b string, rounds int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestInstallerProcess$")
	cmd.Env = append(os.Environ(),
		installer+"="+strings.Join([]string{dir, b, a, fmt.Sprint(rounds)}, "\n"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestInstallPluginWhileItRuns: while the plugin is replaced again and again, each process that
// executes or reads it gets a whole one, and one that is being executed goes on.
func TestInstallPluginWhileItRuns(t *testing.T) {
	t.Parallel()
	const rounds, padding = 60, 1 << 20
	a, contentA := program(t, "a", padding)
	b, contentB := program(t, "b", padding)
	dir := t.TempDir()
	path := filepath.Join(dir, PluginName)
	if _, err := Plugin(a, dir); err != nil {
		t.Fatal(err)
	}
	lasting := exec.CommandContext(t.Context(), path, "600")
	if err := lasting.Start(); err != nil {
		t.Fatal(err)
	}
	installing := startInstaller(t, dir, a, b, rounds)
	ended := make(chan error, 1)
	go func() { ended <- installing.Wait() }()
	var executed int
	seen := map[bool]int{}
	for isOver := false; !isOver; {
		select {
		case err := <-ended:
			isOver = true
			if err != nil {
				t.Errorf("installing: %v", err)
			}
		default:
		}
		if out, err := exec.CommandContext(t.Context(), path, "0").CombinedOutput(); err != nil {
			t.Fatalf("executing it: %v: %s", err, out)
		}
		executed++
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, contentA) && !bytes.Equal(got, contentB) {
			t.Fatalf("read %d bytes that are neither, %v", len(got), err)
		}
		seen[bytes.Equal(got, contentA)]++
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("saw the first %d times, and the second %d times", seen[true], seen[false])
	}
	t.Logf("executed %d times while it was replaced %d times", executed, rounds)
	if err := lasting.Process.Kill(); err != nil {
		t.Errorf("the one that ran from before has ended: %v", err)
	}
	if err := lasting.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the one that ran from before: %v", err)
	}
}

// TestInstalledPluginIsntBusy: it can be executed at once, also where processes are started while
// it is written.
func TestInstalledPluginIsntBusy(t *testing.T) {
	t.Parallel()
	const rounds, padding = 100, 1 << 20
	a, _ := program(t, "a", padding)
	b, _ := program(t, "b", padding)
	dir := t.TempDir()
	over := make(chan struct{})
	var starters sync.WaitGroup
	for range 2 {
		starters.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if err := exec.CommandContext(t.Context(), "true").Run(); err != nil {
					t.Errorf("starting another one: %v", err)
					return
				}
			}
		})
	}
	defer starters.Wait()
	defer close(over)
	for i := range rounds {
		if _, err := Plugin([]string{a, b}[i%2], dir); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, PluginName)
		if out, err := exec.CommandContext(t.Context(), path, "0").CombinedOutput(); err != nil {
			t.Fatalf("executing it for the time %d: %v: %s", i+1, err, out)
		}
	}
}
