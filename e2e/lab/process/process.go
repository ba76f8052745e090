package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
)

// Variable is in the environment of every process of a lab, for who wonders what a process is.
const Variable = "SLUICE_LAB"

// Spawner starts all processes of a lab from one thread, and they die when this thread does
// (PR_SET_PDEATHSIG asks about threads). The thread lives as long as the spawner, so they end with
// the lab's process, whatever ends that.
type Spawner struct {
	lab  string
	jobs chan func()
	dir  string // where running processes are recorded, a file each
	all  sync.WaitGroup
}

// NewSpawner returns one for a lab, which records running processes in dir.
func NewSpawner(lab, dir string) *Spawner {
	s := &Spawner{lab: lab, jobs: make(chan func()), dir: dir}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

// Close waits for all processes to end. Nothing may be started after it.
func (s *Spawner) Close() {
	s.all.Wait()
	close(s.jobs)
}

// Program says what to start.
type Program struct {
	Name   string
	Path   string
	Args   []string
	In     string    // network namespace by name; empty: this process's own
	Stdout io.Writer // nil: the log
	Log    string    // file that output is appended to
}

// Process is one that runs, or has ended.
type Process struct {
	of     Program
	cmd    *exec.Cmd
	Exited chan struct{}
	Err    error // how it ended; read after exited
}

// Start starts a program as the leader of a process group, so that a Ctrl-C at the terminal doesn't
// reach it.
func (s *Spawner) Start(p Program) (*Process, error) {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = append(os.Environ(), Variable+"="+s.lab)
	cmd.Stdout, cmd.Stderr = log, log
	if p.Stdout != nil {
		cmd.Stdout = p.Stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.jobs <- func() { started <- startIn(p.In, cmd) }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.Name, err)
	}
	proc := &Process{of: p, cmd: cmd, Exited: make(chan struct{})}
	record := filepath.Join(s.dir, strconv.Itoa(cmd.Process.Pid))
	err = recordProcess(record, cmd.Process.Pid)
	s.all.Go(func() {
		proc.Err = cmd.Wait()
		_ = os.Remove(record) // what isn't running is never killed for its record
		close(proc.Exited)
	})
	if err != nil {
		proc.Kill()
		return nil, fmt.Errorf("recording %s: %w", p.Name, err)
	}
	return proc, nil
}

// startIn starts cmd in a network namespace, from the current thread, which is left in its own.
func startIn(name string, cmd *exec.Cmd) error {
	if name == "" {
		return cmd.Start()
	}
	home, err := ns.GetCurrentNS()
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	space, err := ns.GetNS(namespace.Path(name))
	if err != nil {
		return err
	}
	defer func() { _ = space.Close() }()
	if err := space.Set(); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), home.Set())
}

// Kill ends the process at once and returns when it is gone. Killing what has ended is no error.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.Exited
}

// Terminate asks the process to end, kills it when ctx ends, and returns when it is gone.
func (p *Process) Terminate(ctx context.Context) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.Exited:
	case <-ctx.Done():
		p.Kill()
	}
}

// Running says whether the process hasn't ended.
func (p *Process) Running() bool {
	select {
	case <-p.Exited:
		return false
	default:
		return true
	}
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Failure describes a process that has ended although it shouldn't have.
func (p *Process) Failure() error {
	const lines = 10
	text, err := os.ReadFile(p.of.Log)
	if err != nil {
		return fmt.Errorf("%s ended: %w", p.of.Name, errors.Join(p.Err, err))
	}
	tail := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	tail = tail[max(0, len(tail)-lines):]
	return fmt.Errorf("%s ended (%w); its log %s ends with:\n%s", p.of.Name, p.Err, p.of.Log,
		bytes.Join(tail, []byte("\n")))
}

// recordProcess notes a process and when it was started, so that its number alone never condemns
// another.
func recordProcess(file string, pid int) error {
	started, err := StartTime(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(started), 0o600)
}

// StartTime is when a process was started, in the kernel's ticks since boot.
func StartTime(pid int) (string, error) {
	_, started, err := readStat(pid)
	return started, err
}

// readStat reads a process' state and start time (proc_pid_stat(5), fields 3 and 22).
func readStat(pid int) (state, started string, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", err
	}
	// From field 3 on: the name before may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const first, wanted = 3, 22
	if len(fields) <= wanted-first {
		return "", "", fmt.Errorf("process %d: unreadable stat", pid)
	}
	return fields[0], fields[wanted-first], nil
}

// IsSame says whether the process of this number is the one that was started then, and not a
// zombie.
func IsSame(pid int, started string) bool {
	state, now, err := readStat(pid)
	return err == nil && now == started && state != "Z" && state != "X"
}

// KillRecorded kills what of the processes recorded in dir still runs.
func KillRecorded(dir string) error {
	var errs []error
	for _, pid := range Recorded(dir) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// Recorded returns those of the processes recorded in dir that still run.
func Recorded(dir string) []int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // nothing was started
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		started, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err == nil && IsSame(pid, string(started)) {
			pids = append(pids, pid)
		}
	}
	return pids
}
