package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/e2e/lab/wait"
	"github.com/sluice-net/sluice/test/stretch"
)

var (
	// orderlyTimeout is how long a lab's process may take to remove the lab when it is asked to.
	orderlyTimeout = stretch.By(30 * time.Second)
	// dyingTimeout is how long killed processes may take to be gone.
	dyingTimeout = stretch.By(10 * time.Second)
)

// Down removes a lab that another process has brought up, also if that process, or any other, was
// killed, and whatever state that left. A process that lives is asked to do it (SIGTERM) first.
// Only processes that the lab started are killed: each is known by its number and the time it was
// started. A lab that isn't there is no error.
func Down(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	s, err := readState(name)
	if err == nil {
		err = endSupervisor(ctx, s)
	}
	if err != nil && !errors.Is(err, ErrNoLab) {
		return err
	}
	processes := filepath.Join(stateDir(name), processesDir)
	// Those of a supervisor that was killed a moment ago are dying already.
	err = wait.Until(ctx, dyingTimeout, "the processes of lab "+name+" to end",
		func() (bool, error) {
			if err := process.KillRecorded(processes); err != nil {
				return false, err
			}
			return len(process.Recorded(processes)) == 0, nil
		})
	return errors.Join(err, namespace.DeleteAll(name), os.RemoveAll(stateDir(name)),
		removeLog(name))
}

func endSupervisor(ctx context.Context, s state) error {
	if s.Supervisor == os.Getpid() {
		return fmt.Errorf("lab %s belongs to this process: its own Down removes it", s.Name)
	}
	gone := func() (bool, error) { return !process.IsSame(s.Supervisor, s.Started), nil }
	for _, step := range []struct {
		signal  syscall.Signal
		timeout time.Duration
	}{{syscall.SIGTERM, orderlyTimeout}, {syscall.SIGKILL, dyingTimeout}} {
		if dead, _ := gone(); dead {
			return nil
		}
		if err := syscall.Kill(s.Supervisor, step.signal); err != nil &&
			!errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending the process of lab %s: %w", s.Name, err)
		}
		err := wait.Until(ctx, step.timeout,
			fmt.Sprintf("process %d of lab %s to end", s.Supervisor, s.Name), gone)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("process %d of lab %s doesn't end", s.Supervisor, s.Name)
}

func removeLog(name string) error {
	if err := os.Remove(LogFile(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
