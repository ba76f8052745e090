package lab

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
)

// labVariable is in the environment of every process of a lab, for who wonders what a process is.
const labVariable = "SLUICE_LAB"

// spawner starts all processes of a lab from one thread, and they die when this thread does (PR_SET_PDEATHSIG asks about
// threads). The thread lives as long as the spawner, so they end with the lab's process, whatever ends that.
type spawner struct {
	lab  string
	jobs chan func()
	dir  string // where running processes are recorded, a file each
	all  sync.WaitGroup
}

func newSpawner(lab, dir string) *spawner {
	s := &spawner{lab: lab, jobs: make(chan func()), dir: dir}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

// close waits for all processes to end. Nothing may be started after it.
func (s *spawner) close() {
	s.all.Wait()
	close(s.jobs)
}

// program says what to start.
type program struct {
	name   string
	path   string
	args   []string
	in     string    // network namespace by name; empty: this process's own
	stdout io.Writer // nil: the log
	log    string    // file that output is appended to
}

// process is one that runs, or has ended.
type process struct {
	of     program
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // how it ended; read after exited
}

// start starts a program as the leader of a process group, so that a Ctrl-C at the terminal doesn't reach it.
func (s *spawner) start(p program) (*process, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(os.Environ(), labVariable+"="+s.lab)
	cmd.Stdout, cmd.Stderr = log, log
	if p.stdout != nil {
		cmd.Stdout = p.stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.jobs <- func() { started <- startIn(p.in, cmd) }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	proc := &process{of: p, cmd: cmd, exited: make(chan struct{})}
	record := filepath.Join(s.dir, strconv.Itoa(cmd.Process.Pid))
	err = recordProcess(record, cmd.Process.Pid)
	s.all.Go(func() {
		proc.err = cmd.Wait()
		_ = os.Remove(record) // what isn't running is never killed for its record
		close(proc.exited)
	})
	if err != nil {
		proc.kill()
		return nil, fmt.Errorf("recording %s: %w", p.name, err)
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
	space, err := ns.GetNS(nsPath(name))
	if err != nil {
		return err
	}
	defer func() { _ = space.Close() }()
	if err := space.Set(); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), home.Set())
}

// kill ends the process at once and returns when it is gone. Killing what has ended is no error.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// terminate asks the process to end, kills it when ctx ends, and returns when it is gone.
func (p *process) terminate(ctx context.Context) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.kill()
	}
}

// running says whether the process hasn't ended.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// pid is the number of the process.
func (p *process) pid() int { return p.cmd.Process.Pid }

// failure describes a process that has ended although it shouldn't have.
func (p *process) failure() error {
	const lines = 10
	text, err := os.ReadFile(p.of.log)
	if err != nil {
		return fmt.Errorf("%s ended: %w", p.of.name, errors.Join(p.err, err))
	}
	tail := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	tail = tail[max(0, len(tail)-lines):]
	return fmt.Errorf("%s ended (%w); its log %s ends with:\n%s", p.of.name, p.err, p.of.log, bytes.Join(tail, []byte("\n")))
}

// recordProcess notes a process and when it was started, so that its number alone never condemns another.
func recordProcess(file string, pid int) error {
	started, err := startTime(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(started), 0o600)
}

// startTime is when a process was started, in the kernel's ticks since boot.
func startTime(pid int) (string, error) {
	_, started, err := readStat(pid)
	return started, err
}

// readStat reads a process' state and start time (proc_pid_stat(5), fields 3 and 22).
func readStat(pid int) (state, started string, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from field 3 on: the name may hold anything
	const first, wanted = 3, 22
	if len(fields) <= wanted-first {
		return "", "", fmt.Errorf("process %d: unreadable stat", pid)
	}
	return fields[0], fields[wanted-first], nil
}

// isSame says whether the process of this number is the one that was started then, and not a zombie.
func isSame(pid int, started string) bool {
	state, now, err := readStat(pid)
	return err == nil && now == started && state != "Z" && state != "X"
}

// killRecorded kills what of the processes recorded in dir still runs.
func killRecorded(dir string) error {
	var errs []error
	for _, pid := range recorded(dir) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// recorded returns those of the processes recorded in dir that still run.
func recorded(dir string) []int {
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
		if err == nil && isSame(pid, string(started)) {
			pids = append(pids, pid)
		}
	}
	return pids
}
