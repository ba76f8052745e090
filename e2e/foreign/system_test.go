package foreign

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/lab"
)

// system is a Debian on a node of a lab: it has the node's network, and processes and files of its
// own. What it writes is in memory, and gone when the test ends.
type system struct {
	w    *world
	node *lab.Node
	pid  string // of the process that the others are children of
	root string // its files as other processes see them
}

// bootScript makes a system's files in the folder $2, of the Debian in $1, and then waits until its
// standard input ends, which is when the test does. With it end all other processes of the system.
//
// Its /sys is read-only, as in a container: so daemons ask the kernel for links, and not udev,
// which knows the machine's own alone.
const bootScript = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sys sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir run/dbus run/lock
touch run/booted
exec chroot . sh -c 'read nothing'
`

// needDebian returns the folder of a Debian with the daemons that a node may have.
func needDebian(t *testing.T) string {
	t.Helper()
	dir, err := assets.FoundDebian()
	if err != nil {
		t.Skipf("needs a Debian with daemons, which make daemons makes: %v", err)
	}
	return dir
}

// boot starts a node's system, with a bus for its daemons.
func (w *world) boot(node *lab.Node, debian string) *system {
	w.t.Helper()
	folder := filepath.Join(node.Dir(), "system")
	must(w.t, os.MkdirAll(folder, 0o755))
	first := exec.Command("sh", "-c", bootScript, "sh", debian, folder)
	first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS}
	input, err := first.StdinPipe()
	must(w.t, err)
	log, err := os.Create(filepath.Join(folder, "boot.log"))
	must(w.t, err)
	first.Stdout, first.Stderr = log, log
	must(w.t, node.Do(first.Start))
	w.t.Cleanup(func() {
		_ = input.Close()
		_ = first.Wait() // it has no status of its own
		must(w.t, log.Close())
		logTail(w.t, "the system of "+node.Name(), log.Name())
	})
	pid := strconv.Itoa(first.Process.Pid)
	s := &system{w: w, node: node, pid: pid, root: filepath.Join("/proc", pid, "root")}
	w.eventually("the system of "+node.Name(), func() bool {
		_, err := os.Stat(filepath.Join(s.root, "run/booted"))
		return err == nil
	})
	s.start("dbus-daemon", "--system", "--nofork", "--nopidfile")
	w.eventually("the bus of "+node.Name(), func() bool {
		_, err := os.Stat(filepath.Join(s.root, "run/dbus/system_bus_socket"))
		return err == nil
	})
	return s
}

// command is a program of the system.
func (s *system) command(ctx context.Context, args ...string) *exec.Cmd {
	//nolint:gosec // a test's own words
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target", s.pid, "--mount",
		"--pid", "--net", "--root", "--wd=/", "--", "env", "-i", "HOME=/root", "LANG=C.UTF-8",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, args...)...)
}

// try runs a program of the system to its end, and returns what it printed; the error has what it
// complained of.
func (s *system) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	cmd := s.command(ctx, args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %s: %w\n%s%s", s.node.Name(), strings.Join(args, " "), err, out,
			complaint.String())
	}
	return string(out), err
}

// run is try for what has to succeed.
func (s *system) run(args ...string) string {
	s.w.t.Helper()
	out, err := s.try(args...)
	must(s.w.t, err)
	return out
}

// write writes a file of the system, by its path from the root.
func (s *system) write(path, content string) {
	s.w.t.Helper()
	path = filepath.Join(s.root, path)
	must(s.w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(s.w.t, os.WriteFile(path, []byte(content), 0o644)) //nolint:gosec // daemons aren't root
}

// start starts a daemon, which runs until the system ends or stop is called. What it says is logged
// if the test fails.
func (s *system) start(args ...string) (stop func()) {
	s.w.t.Helper()
	name := filepath.Base(args[0])
	path := filepath.Join(s.node.Dir(), name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(s.w.t, err)
	file := "/run/" + name + ".started" // of its number in the system
	cmd := s.command(context.Background(),
		append([]string{"sh", "-c", `echo $$ >"$0"; exec "$@"`, file}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	must(s.w.t, cmd.Start())
	stop = sync.OnceFunc(func() {
		if _, err := s.try("sh", "-c", `kill "$(cat "$0")"`, file); err != nil {
			s.w.t.Errorf("%s of %s has ended by itself: %v", name, s.node.Name(), err)
		}
		kill := time.AfterFunc(settleTime, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait()
		must(s.w.t, log.Close())
	})
	s.w.t.Cleanup(func() {
		stop()
		logTail(s.w.t, name+" of "+s.node.Name(), path)
	})
	return stop
}

// logTail logs the end of a file if the test has failed.
func logTail(t *testing.T, what, path string) {
	t.Helper()
	const most = 4000
	if text, err := os.ReadFile(path); t.Failed() && err == nil {
		t.Logf("%s:\n%s", what, text[max(0, len(text)-most):])
	}
}
