package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/lab"
)

// peerAgents returns the programs of other projects, or skips the benchmark.
func peerAgents(b *testing.B) assets.OtherAgents {
	b.Helper()
	if os.Getenv("SLUICE_PEERS") == "" {
		b.Skip("only by make bench-peers: it builds other projects' programs")
	}
	programs, err := assets.PeerAgents(b.Context(), os.Stderr)
	must(b, err)
	return programs
}

// newLab is up until the benchmark ends. Its name begins so.
func newLab(b *testing.B, name string, options lab.Options) *lab.Lab {
	b.Helper()
	options.Name, options.Progress = fmt.Sprintf("%s-%d", name, os.Getpid()), os.Stderr
	l, err := lab.Up(b.Context(), options)
	must(b, err)
	b.Cleanup(func() {
		if err := l.Down(); err != nil {
			b.Error(err)
		}
	})
	return l
}

// daemon is another project's program, which runs in a network namespace until the benchmark ends.
type daemon struct {
	name, log string
	pid       int
	ended     chan struct{}
}

// startDaemon has a program see the lab's API server where the lab's Kubeconfig says.
func startDaemon(b *testing.B, l *lab.Lab, where place, path string, env []string,
	args ...string) *daemon {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	must(b, err)
	api, err := url.Parse(config.Host)
	must(b, err)
	forward(b, where, api.Host)
	name := filepath.Base(path)
	d := &daemon{name: name, log: filepath.Join(b.TempDir(), name+".log"),
		ended: make(chan struct{})}
	log, err := os.Create(d.log)
	must(b, err)
	cmd := exec.CommandContext(context.WithoutCancel(b.Context()), path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), log, log
	// Whatever ends the benchmark ends the program: the thread that started it lives as long.
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started := make(chan error, 1)
	go func() {
		defer close(d.ended)
		err := where.Do(func() error { // it inherits the thread's namespace
			err := cmd.Start()
			started <- err
			if err == nil {
				_ = cmd.Wait() // of one that is killed
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	must(b, <-started)
	d.pid = cmd.Process.Pid
	b.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // unless it has ended
		select {
		case <-d.ended:
		case <-time.After(patience):
			must(b, cmd.Process.Kill())
			<-d.ended
		}
		must(b, log.Close())
		if b.Failed() {
			b.Logf("%s: %s", name, d.said())
		}
	})
	return d
}

// said is the end of what the program has logged.
func (d *daemon) said() string {
	const most = 4 << 10
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

// running is an error when the program has ended.
func (d *daemon) running() error {
	select {
	case <-d.ended:
		return fmt.Errorf("%s has ended: %s", d.name, d.said())
	default:
		return nil
	}
}

// forward carries TCP connections to an address in a namespace on to the same address in this one,
// until the benchmark ends.
func forward(b *testing.B, where place, address string) {
	b.Helper()
	listener := in(b, where, func() (net.Listener, error) { return net.Listen("tcp", address) })
	var carrying sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	keep := func(conns ...net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, conns...)
	}
	b.Cleanup(func() {
		must(b, listener.Close())
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close() // it may be closed
		}
		mu.Unlock()
		carrying.Wait()
	})
	carrying.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", address)
			if err != nil {
				_ = from.Close() // which tells the client
				continue
			}
			keep(from, to)
			carrying.Go(func() { carry(from, to) })
			carrying.Go(func() { carry(to, from) })
		}
	})
}

// carry ends both connections when the first has ended.
func carry(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_ = errors.Join(from.Close(), to.Close())
}
