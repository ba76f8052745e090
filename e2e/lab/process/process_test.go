package process

import (
	"os"
	"os/exec"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// Another process that got the number of one that we started must never be taken for it.
func TestProcessesAreKnownByTheirStart(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if !IsSame(cmd.Process.Pid, started) {
		t.Error("a process isn't itself")
	}
	if IsSame(cmd.Process.Pid, started+"0") || IsSame(os.Getpid(), started+"0") {
		t.Error("a process is taken for one that was started at another time")
	}
	if err := input.Close(); err != nil {
		t.Fatal(err)
	}
	err = wait.Until(t.Context(), wait.ReadyTimeout, "the process to end", func() (bool, error) {
		return !IsSame(cmd.Process.Pid, started), nil // a zombie, which nobody has waited for
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
