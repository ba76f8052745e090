package controllers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/overlay"
)

const (
	goodConf  = `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}`
	otherConf = `{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}`
	badConf   = `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": -1}}`
)

func newConf(t *testing.T) *netConf {
	t.Helper()
	dir := t.TempDir()
	return &netConf{path: filepath.Join(dir, "net-conf.json"),
		saved: newKeeper(t, filepath.Join(dir, "saved.json"))}
}

// newKeeper makes one that is done when the test's files go.
func newKeeper(t *testing.T, path string) *keeper {
	t.Helper()
	k := &keeper{path: path, log: logr.Discard()}
	t.Cleanup(func() { k.settle(t) })
	return k
}

// settle waits until what is kept was written, or couldn't be.
func (k *keeper) settle(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		k.mu.Lock()
		writing := k.writing
		k.mu.Unlock()
		if !writing {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it is still being written")
		}
	}
}

func (n *netConf) write(t *testing.T, content string) {
	t.Helper()
	if err := os.WriteFile(n.path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNetConfFollowsTheFile(t *testing.T) {
	t.Parallel()
	n := newConf(t)
	n.write(t, goodConf)
	if !n.read() || n.err != nil || n.config.VNI != 7 {
		t.Fatalf("config %+v, error %v", n.config, n.err)
	}
	if n.read() {
		t.Error("a file that is the same counts as changed")
	}
	n.write(t, otherConf)
	if !n.read() || n.err != nil || n.config.Backend != overlay.HostGW {
		t.Errorf("config %+v, error %v", n.config, n.err)
	}
}

// What was saved is replaced as a whole or not at all: an agent can die while it writes.
func TestNetConfIsSavedWhole(t *testing.T) {
	t.Parallel()
	n := newConf(t)
	n.write(t, goodConf)
	n.read()
	n.saved.settle(t)
	blocked := filepath.Join(filepath.Dir(n.saved.path), ".new-"+filepath.Base(n.saved.path), "x")
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	n.write(t, otherConf)
	n.read() // it can't be saved
	n.saved.settle(t)
	if got, err := os.ReadFile(n.saved.path); err != nil || string(got) != goodConf {
		t.Errorf("saved is %q, error %v", got, err)
	}
	if err := os.RemoveAll(filepath.Dir(blocked)); err != nil {
		t.Fatal(err)
	}
	n.read() // the same file
	n.saved.settle(t)
	if got, err := os.ReadFile(n.saved.path); err != nil || string(got) != otherConf {
		t.Errorf("saved is %q, error %v", got, err)
	}
}

// No part of the agent waits for what is kept for the next agent: a disk may hang.
func TestNetConfWaitsForNoDisk(t *testing.T) {
	t.Parallel()
	n := newConf(t)
	pipe := filepath.Join(filepath.Dir(n.saved.path), ".new-"+filepath.Base(n.saved.path))
	// opening it to write hangs until there is a reader
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	n.write(t, goodConf)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.read()
		n.write(t, otherConf)
		n.read()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("who reads the configuration waits for the disk")
	}
	reader, err := os.Open(pipe) // it goes on
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	<-done
	n.saved.settle(t)
	if n.config.Backend != overlay.HostGW {
		t.Errorf("config %+v", n.config)
	}
	n.read()
	n.saved.settle(t)
	if got, err := os.ReadFile(n.saved.path); err != nil || string(got) != otherConf {
		t.Errorf("saved is %q, error %v", got, err)
	}
}

// What is wrong doesn't undo what works, and says what it is.
func TestNetConfKeepsWhatWorks(t *testing.T) {
	t.Parallel()
	n := newConf(t)
	n.write(t, goodConf)
	n.read()
	n.saved.settle(t)
	n.write(t, badConf)
	if !n.read() || n.err == nil || !strings.Contains(n.err.Error(), "Backend.VNI: -1: expected") {
		t.Errorf("error %v", n.err)
	}
	if n.config.VNI != 7 {
		t.Errorf("config %+v", n.config)
	}
	if n.read() {
		t.Error("the same wrong file counts as changed")
	}
	if err := os.Remove(n.path); err != nil {
		t.Fatal(err)
	}
	if !n.read() || n.err == nil || n.config.VNI != 7 {
		t.Errorf("without a file: config %+v, error %v", n.config, n.err)
	}
	// The file comes back, with what was read last before.
	n.write(t, goodConf)
	if !n.read() || n.err != nil {
		t.Errorf("once it is back: error %v", n.err)
	}

	restarted := &netConf{path: n.path, saved: newKeeper(t, n.saved.path)}
	restarted.write(t, badConf)
	if !restarted.read() || restarted.err == nil || restarted.config == nil ||
		restarted.config.VNI != 7 {
		t.Errorf("after a restart: config %+v, error %v", restarted.config, restarted.err)
	}
	restarted.write(t, goodConf)
	if !restarted.read() || restarted.err != nil {
		t.Errorf("once it is right: error %v", restarted.err)
	}

	fresh := newConf(t)
	fresh.write(t, badConf)
	if fresh.read(); fresh.err == nil || fresh.config != nil {
		t.Errorf("on a fresh node: config %+v, error %v", fresh.config, fresh.err)
	}
	fresh.write(t, strings.Repeat(" ", netConfMax+1))
	if fresh.read(); fresh.err == nil ||
		!strings.Contains(fresh.err.Error(), "expected a file of at most 65536") {
		t.Errorf("a large file: error %v", fresh.err)
	}
}

// A mounted ConfigMap is a link to a link to a folder; an update replaces the one in the middle.
func TestWatchFileSeesAConfigMapsUpdate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"v1": goodConf, "v2": otherConf} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "net-conf.json"), []byte(content),
			0o600); err != nil {
			t.Fatal(err)
		}
	}
	symlink(t, dir, "v1", "..data")
	symlink(t, dir, "..data/net-conf.json", "net-conf.json")
	path := filepath.Join(dir, "net-conf.json")
	seen := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- watchFile(ctx, path, time.Hour, func() {
			content, _ := os.ReadFile(path) //nolint:gosec // the test's own file
			select {
			case seen <- string(content):
			default:
			}
		})
	}()
	await(t, seen, goodConf)
	symlink(t, dir, "v2", "..next")
	if err := os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	await(t, seen, otherConf)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func symlink(t *testing.T, dir, to, name string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, seen <-chan string, want string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case got := <-seen:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("never saw %s", want)
		}
	}
}
