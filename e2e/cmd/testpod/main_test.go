package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/testnet"
)

// beTestpod has the test binary be the program: so its signals, its output and its exit code are
// tested too.
const beTestpod = "BE_TESTPOD"

func TestMain(m *testing.M) {
	if os.Getenv(beTestpod) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// patiently is how long tests wait for what must come.
const patiently = 20 * time.Second

var (
	clientAddrs = []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	serverAddrs = []netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fd00::3")}
)

// twoPods is a node with a client's and a server's pod.
func twoPods(t *testing.T) (node *testnet.Node, client, server *testnet.Host) {
	t.Helper()
	node = testnet.NewNode(t)
	node.AddAddr(netip.MustParseAddr("10.0.0.1"))
	return node, node.Pod("client", clientAddrs...), node.Pod("server", serverAddrs...)
}

// process is the program as it runs in a pod.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	once  sync.Once
	err   error
}

// start runs the program in host's namespace until the test ends.
func start(t *testing.T, host *testnet.Host, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), lines: make(chan string, 10_000)}
	// the race detector would sleep for a second at each exit
	p.cmd.Env = []string{beTestpod + "=1", "GORACE=atexit_sleep_ms=0"}
	p.cmd.Stderr = t.Output()
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = host.Do(p.cmd.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		in := bufio.NewReader(out)
		for line, err := in.ReadString('\n'); !errors.Is(err, io.EOF); line,
			err = in.ReadString('\n') {
			p.lines <- line
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // which may be over
		_ = p.wait()
	})
	return p
}

// wait waits until the program has ended.
func (p *process) wait() error {
	p.once.Do(func() {
		for range p.lines { // Wait may only be called when all is read
		}
		p.err = p.cmd.Wait()
	})
	return p.err
}

// terminate sends SIGTERM.
func (p *process) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// await returns the next report for which match holds, passing over others.
func (p *process) await(what string, match func(testprogram.Report) bool) testprogram.Report {
	p.t.Helper()
	deadline := time.After(patiently)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("%v ended without %s", p.cmd.Args[1:], what)
			}
			for _, report := range testprogram.ReadLog(line) {
				if match(report) {
					return report
				}
			}
		case <-deadline:
			p.t.Fatalf("%v: no %s within %s", p.cmd.Args[1:], what, patiently)
		}
	}
}

// rest ends the program and returns all reports that weren't awaited.
func (p *process) rest() []testprogram.Report {
	p.t.Helper()
	p.terminate()
	var log strings.Builder
	for line := range p.lines {
		log.WriteString(line)
	}
	if err := p.wait(); err != nil {
		p.t.Errorf("%v: %v", p.cmd.Args[1:], err)
	}
	return testprogram.ReadLog(log.String())
}

func (p *process) awaitServing() *process {
	p.t.Helper()
	p.await("serving", func(r testprogram.Report) bool { return r.Serving })
	return p
}

// output runs the program until it ends by itself and reads the one value that it printed.
func output[T any](t *testing.T, host *testnet.Host, args ...string) T {
	t.Helper()
	p := start(t, host, args...)
	var value T
	line := <-p.lines
	if err := json.Unmarshal([]byte(line), &value); err != nil {
		t.Fatalf("%v printed %q: %v", args, line, err)
	}
	if err := p.wait(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return value
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"", "listen", "connect", "connect 10.0.0.1:80", "resolve", "resolve a b",
		"resolve --server x a", "serve --serve http/80",
		"send --size 0 tcp://10.0.0.1:80", "send --df tcp://10.0.0.1:80", "send sctp://10.0.0.1:80",
		"send tcp://10.0.0.1:1 tcp://10.0.0.1:2",
		"watch", "watch --target x", "watch --expect maybe --target tcp://10.0.0.1:80",
		"watch --every 0s --target tcp://10.0.0.1:80",
		"watch --lasting --expect refused --target tcp://10.0.0.1:80",
		"first --denied tcp://10.0.0.1",
	} {
		var out strings.Builder
		if err := run(t.Context(), strings.Fields(args), &out); err == nil || out.Len() > 0 {
			t.Errorf("%q: printed %q (%v), want nothing but an error", args, out.String(), err)
		}
	}
}
