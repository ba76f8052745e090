package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/test/probe"
)

// remains lists what there is of labs whose name begins so: namespaces, processes and files; and
// the links of this namespace, where no lab has any.
func remains(t *testing.T, prefix string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{namespace.Path(namespace.Prefix(prefix)), stateDir(prefix)} {
		files, err := filepath.Glob(strings.TrimSuffix(pattern, ".") + "*")
		must(t, err)
		found = append(found, files...)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "sluice-lab."+prefix) {
			found = append(found, "mount "+line)
		}
	}
	for _, process := range processes(t, prefix) {
		found = append(found, "process "+process)
	}
	return found
}

// processes lists those whose arguments or environment name a lab that begins so, this one aside.
func processes(t *testing.T, prefix string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		environ, err := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if err != nil || !bytes.Contains(text, []byte(prefix)) &&
			!bytes.Contains(environ, []byte(process.Variable+"="+prefix)) {
			continue
		}
		pid := filepath.Base(filepath.Dir(file))
		if pid != strconv.Itoa(os.Getpid()) {
			found = append(found, pid+" "+string(bytes.ReplaceAll(text, []byte{0}, []byte(" "))))
		}
	}
	return found
}

func links(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	must(t, err)
	var names []string
	for _, link := range all {
		names = append(names, link.Name)
	}
	return strings.Join(names, " ")
}

// noneRemains demands that nothing is left. A namespace's links go a moment after it.
func noneRemains(t *testing.T, prefix, linksBefore string) {
	t.Helper()
	if left := remains(t, prefix); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if after := links(t); after != linksBefore {
		t.Errorf("links are %s, they were %s", after, linksBefore)
	}
}

func TestTwoLabsSideBySideAndDown(t *testing.T) {
	t.Parallel()
	before := links(t)
	prefix := testName("two")
	first, second := newTestLab(t, Options{Name: prefix + "-a"}),
		newTestLab(t, Options{Name: prefix + "-b", Families: IPv4})
	if l, err := Up(t.Context(), Options{Name: prefix + "-a"}); err == nil {
		t.Errorf("a second lab of the same name: %v", errors.Join(l.Down()))
	}
	for _, l := range []*Lab{first, second} {
		must(t, l.Apply(t.Context(), podManifest("default", "web", "node2", nil, "80")))
	}
	for _, l := range []*Lab{first, second} {
		must(t, l.WaitReady(within(t, 20*time.Second), "default/web"))
		// Same name and address in both, and each answers in its own.
		pod, err := l.Pod("default/web")
		must(t, err)
		if r := l.Reach(t.Context(), "node1", probe.TCP, at(pod.Addr4(), 80)); !r.OK {
			t.Errorf("%s: %s", l.Name(), r)
		}
	}
	names, err := List()
	if err != nil || !strings.Contains(strings.Join(names, " "), first.Name()+" "+second.Name()) {
		t.Errorf("labs are %v (%v)", names, err)
	}
	if err := Down(t.Context(), first.Name()); err == nil {
		t.Error("a lab of this process was removed behind its back")
	}
	if len(remains(t, prefix)) < 10 {
		t.Errorf("looking for remains doesn't find what is there: %v", remains(t, prefix))
	}

	must(t, first.Down())
	must(t, first.Down())
	if left := remains(t, first.Name()); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	pod, err := second.Pod("default/web")
	must(t, err)
	if r := second.Reach(t.Context(), Outside, probe.TCP, at(pod.Addr4(), 80)); !r.OK {
		t.Errorf("the second lab, after the first is gone: %s", r)
	}
	must(t, second.Down())
	noneRemains(t, prefix, before)
}

func TestUpThatIsInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	before := links(t)
	name := testName("early")
	// Long enough to begin, and too short to be ready.
	if l, err := Up(within(t, 700*time.Millisecond), Options{Name: name}); err == nil {
		t.Errorf("a lab was ready in no time: %v", l.Down())
	}
	noneRemains(t, name, before)
}

// supervised is a lab of another process, the lab command.
type supervised struct {
	program string
	cmd     *exec.Cmd
	output  chan string // all of it, when the process has closed it
}

// startSupervised runs lab up and returns when its lab is ready and has a pod.
func startSupervised(t *testing.T, name string) supervised {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	program := filepath.Join(t.TempDir(), "lab")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../cmd/lab").
		CombinedOutput()
	if err != nil {
		t.Fatalf("building the lab command: %v\n%s", err, out)
	}
	s := supervised{program: program,
		cmd:    exec.Command(program, "up", "--name", name, "--nodes", "2"),
		output: make(chan string, 1)}
	stdout, err := s.cmd.StdoutPipe()
	must(t, err)
	s.cmd.Stderr = t.Output()
	must(t, s.cmd.Start())
	t.Cleanup(func() { _ = Down(within(t, time.Minute), name) }) // if the test fails before
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	if err != nil || !strings.Contains(line, "lab "+name+" is ready") {
		t.Fatalf("lab up says %q (%v)", line, err)
	}
	go func() {
		rest, _ := io.ReadAll(lines) // ends with the process
		s.output <- line + string(rest)
	}()
	l, err := OpenLab(name)
	must(t, err)
	must(t, l.Apply(t.Context(), podManifest("default", "web", "node1", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second), "default/web"))
	pod, err := l.Pod("default/web")
	must(t, err)
	if r := l.Reach(t.Context(), "node2", probe.TCP, at(pod.Addr4(), 80)); !r.OK {
		t.Errorf("from another process: %s", r)
	}
	return s
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	before, name := links(t), testName("int")
	s := startSupervised(t, name)
	must(t, s.cmd.Process.Signal(syscall.SIGINT))
	output := <-s.output
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("lab up, interrupted: %v", err)
	}
	for _, want := range []string{"kubeconfig", "lab=" + s.program + "\n",
		"lab probe --name " + name, "removing the lab"} {
		if !strings.Contains(output, want) {
			t.Errorf("lab up doesn't say %q:\n%s", want, output)
		}
	}
	noneRemains(t, name, before)
}

func TestDownAfterKill(t *testing.T) {
	t.Parallel()
	before, name := links(t), testName("kill")
	s := startSupervised(t, name)
	if len(processes(t, name)) < 6 { // itself, etcd, the API server, two agents, a pod
		t.Errorf("looking for processes doesn't find what runs: %v", processes(t, name))
	}
	must(t, s.cmd.Process.Kill())
	<-s.output
	if err := s.cmd.Wait(); err == nil {
		t.Error("lab up wasn't killed")
	}
	if _, err := OpenLab(name); err == nil {
		t.Error("a lab whose process was killed can be used")
	}
	out, err := exec.CommandContext(t.Context(), s.program, "down", "--name", name).CombinedOutput()
	if err != nil {
		t.Errorf("lab down: %v\n%s", err, out)
	}
	noneRemains(t, name, before)
	must(t, Down(t.Context(), name)) // nothing there is no error
}

func TestDetachedLabIsUsedByCommands(t *testing.T) {
	t.Parallel()
	before, name := links(t), testName("bg")
	s := startSupervised(t, name+"-x") // for its program
	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	<-s.output
	must(t, s.cmd.Wait())

	lab := func(want string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(within(t, time.Minute), s.program, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("lab %s: %v, got %q, want %q in it", strings.Join(args, " "), err, out, want)
		}
	}
	lab("is ready", "up", "--name", name, "--detach", "--nodes=1", "--ip-family=ipv4")
	lab(name, "list")
	l, err := OpenLab(name)
	must(t, err)
	must(t, l.Apply(t.Context(), podManifest("default", "web", "", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second), "default/web"))
	pod, err := l.Pod("default/web")
	must(t, err)
	lab("default/web  yes          yes", "probe", "--name", name)
	lab(fmt.Sprintf("%s/32", pod.Addr4()), "exec", "--name", name, "default/web", "--", "ip", "-4",
		"address", "show", "dev", "eth0")
	lab("allowed", "why", "--name", name, "node1", "192.168.0.250", "default/web", "80")
	must(t, Down(within(t, time.Minute), name))
	noneRemains(t, name, before)
}
