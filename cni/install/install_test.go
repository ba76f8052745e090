package install

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/test/testdisk"
)

// program is a real program with some bytes behind it that distinguish it from others.
func program(t *testing.T, mark string, padding int) (path string, content []byte) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if content, err = os.ReadFile(sleep); err != nil {
		t.Fatal(err)
	}
	content = append(content, bytes.Repeat([]byte(mark), padding)...)
	path = filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// unfinishedIn lists what installations left in a directory.
func unfinishedIn(t *testing.T, dir string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, unfinished))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestInstallPlugin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(path string) error
		same   bool
	}{
		"nothing":      {before: func(string) error { return nil }},
		"no directory": {before: func(path string) error { return os.Remove(filepath.Dir(path)) }},
		"another program": {
			before: func(path string) error {
				return os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755)
			}},
		"a beginning of the program": {
			before: func(path string) error { return os.WriteFile(path, []byte("new"), 0o755) }},
		"as much, but other": {
			before: func(path string) error {
				return os.WriteFile(path, []byte("old program"), 0o755)
			}},
		"the program, not executable": {
			before: func(path string) error {
				return os.WriteFile(path, []byte("new program"), 0o644)
			}},
		"the program": {
			before: func(path string) error {
				return os.WriteFile(path, []byte("new program"), 0o755)
			}, same: true},
		"a link to somebody's file": {
			before: func(path string) error { return os.Symlink("../victim", path) }},
		"a link to the program": {
			before: func(path string) error { return os.Symlink("../program", path) }},
		"a link to a directory": {
			before: func(path string) error { return os.Symlink("..", path) }},
		"a link to nowhere": {
			before: func(path string) error { return os.Symlink("../missing", path) }},
		"what a killed one left behind": {before: func(path string) error {
			return os.WriteFile(filepath.Dir(path)+"/.sluice-1.new", []byte("new"), 0o600)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			dir, from, victim := filepath.Join(base, "bin"), filepath.Join(base, "program"),
				filepath.Join(base, "victim")
			path := filepath.Join(dir, PluginName)
			for _, err := range []error{os.Mkdir(dir, 0o755),
				os.WriteFile(from, []byte("new program"), 0o700),
				os.WriteFile(victim, []byte("victim"), 0o600), c.before(path)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if changed, err := Plugin(from, dir); err != nil || changed == c.same {
				t.Errorf("changed: %t, error %v", changed, err)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != 0o755 {
				t.Fatalf("got %v, %v", info, err)
			}
			if changed, err := Plugin(from, dir); err != nil || changed {
				t.Errorf("again: changed: %t, error %v", changed, err)
			}
			if now, err := os.Lstat(path); err != nil || !os.SameFile(info, now) {
				t.Errorf("it was written again: %v", err)
			}
			for file, want := range map[string]string{path: "new program", from: "new program",
				victim: "victim"} {
				if got, err := os.ReadFile(file); err != nil || string(got) != want {
					t.Errorf("%s: got %q, %v", file, got, err)
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("left %v, %v", left, err)
			}
			for range 2 {
				if err := RemovePlugin(dir); err != nil {
					t.Error(err)
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("after the removal left %v, %v", left, err)
			}
		})
	}
}

func TestInstallPluginRefuses(t *testing.T) {
	t.Parallel()
	good := func(string) string { return "program" }
	for name, c := range map[string]struct {
		before func(path string) error
		from   func(base string) string
	}{
		"a directory in its place": {
			func(path string) error { return os.Mkdir(path, 0o755) }, good},
		"a file as the directory": {func(path string) error {
			return os.Rename(filepath.Join(filepath.Dir(path), "../program"), filepath.Dir(path))
		}, good},
		"no program": {func(string) error { return nil }, func(string) string { return "missing" }},
		"a directory as program": {func(string) error { return nil },
			func(string) string { return "bin" }},
		"an empty program": {func(string) error { return nil },
			func(string) string { return "empty" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			dir := filepath.Join(base, "bin")
			for _, err := range []error{
				os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(base, "program"), []byte("new"),
					0o700), os.WriteFile(filepath.Join(base, "empty"), nil, 0o700),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if name == "a file as the directory" {
				if err := os.Remove(dir); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.before(filepath.Join(dir, PluginName)); err != nil {
				t.Fatal(err)
			}
			if changed, err := Plugin(filepath.Join(base, c.from(base)), dir); err == nil ||
				changed {
				t.Errorf("changed: %t, no error", changed)
			}
			if left := unfinishedIn(t, dir); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// TestInstallPluginOnBadDisk: a plugin that is there stays, whole, and the error says that it does;
// without one it is an error like others.
func TestInstallPluginOnBadDisk(t *testing.T) {
	t.Parallel()
	for _, fault := range testdisk.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			disk := testdisk.New(t)
			program := filepath.Join(t.TempDir(), "program")
			path := filepath.Join(disk.Dir(), PluginName)
			install := func(content string) error {
				if err := os.WriteFile(program, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				_, err := Plugin(program, disk.Dir())
				return err
			}
			if err := install("old"); err != nil {
				t.Fatal(err)
			}
			fault.Set(disk, true)
			if err := install("old"); err != nil {
				t.Errorf("there is nothing to write: %v", err)
			}
			err := install("new")
			if !errors.Is(err, ErrPluginStays) || !strings.Contains(err.Error(), path) ||
				!strings.Contains(err.Error(), fault.Says) {
				t.Errorf("got %v, want that it stays, its name and %q", err, fault.Says)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
				t.Errorf("there is %q, %v", got, err)
			}
			fault.Set(disk, false)
			if err := RemovePlugin(disk.Dir()); err != nil {
				t.Fatal(err)
			}
			fault.Set(disk, true)
			if err := install("new"); err == nil || errors.Is(err, ErrPluginStays) {
				t.Errorf("without a plugin: %v", err)
			}
			fault.Set(disk, false)
			if err := install("new"); err != nil {
				t.Errorf("once it can: %v", err)
			}
		})
	}
}

// TestInstallPluginKilled: whenever an installation is killed, the plugin is the old or the new
// one, and the next installation cleans up.
func TestInstallPluginKilled(t *testing.T) {
	t.Parallel()
	const wanted, most, padding = 3, 100, 4 << 20 // rounds
	a, contentA := program(t, "a", padding)
	b, contentB := program(t, "b", padding)
	dir := t.TempDir()
	path := filepath.Join(dir, PluginName)
	var leftBehind, rounds int
	for ; leftBehind < wanted && rounds < most; rounds++ {
		if _, err := Plugin(a, dir); err != nil {
			t.Fatal(err)
		}
		if left := unfinishedIn(t, dir); len(left) > 0 {
			t.Fatalf("an installation left %v", left)
		}
		installing := startInstaller(t, dir, a, b, 1<<30)
		waitUntilReplaced(t, path)
		timer := time.NewTimer(rand.N(50 * time.Millisecond)) //nolint:gosec // any moment will do
		<-timer.C
		if err := installing.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = installing.Wait() // it was killed
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, contentA) && !bytes.Equal(got, contentB) {
			t.Fatalf("found %d bytes that are neither, %v", len(got), err)
		}
		if out, err := exec.CommandContext(t.Context(), path, "0").CombinedOutput(); err != nil {
			t.Fatalf("executing it: %v: %s", err, out)
		}
		leftBehind += len(unfinishedIn(t, dir))
	}
	if leftBehind < wanted {
		t.Error("too few were killed in the middle")
	}
	t.Logf("%d of %d left an unfinished file", leftBehind, rounds)
}

// waitUntilReplaced waits until the process that was started has replaced the file once.
func waitUntilReplaced(t *testing.T, path string) {
	t.Helper()
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		now, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(before, now) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the installer has replaced nothing")
		}
	}
}

func TestPluginUsers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"05-sluice.conflist":   `{"plugins":[{"type":"sluice"}]}`,
		"10-flannel.conflist":  `{"plugins":[{"type":"flannel"},{"type":"sluice","mode":"policy"}]}`,
		"10-other.conf":        `{"type":"ptp","name":"sluice"}`,
		"00-multus.conf":       `{"type":"multus","delegates":[{"plugins":[{"type":"sluice"}]}]}`,
		"20-broken.conflist":   `{"plugins":[{"type":"sluice"`,
		"30-old.conflist.bak":  `{"plugins":[{"type":"sluice"}]}`,
		"40-multus.json":       `{"type":"multus","clusterNetwork":"/etc/cni/net.d/05-sluice.conflist"}`,
		"50-dir.conflist/file": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := PluginUsers(dir)
	want := []string{"00-multus.conf", "10-flannel.conflist"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := PluginUsers(filepath.Join(dir, "missing")); err != nil || len(got) > 0 {
		t.Errorf("without the directory: %v, %v", got, err)
	}
}

// RemoveState removes what is the agent's, and nothing else.
func TestRemoveState(t *testing.T) {
	t.Parallel()
	for _, foreign := range []string{"", "notes.txt", "attachments/notes.txt"} {
		t.Run(foreign, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			files := []string{
				"attachments/c1@eth0.json", "attachments/.new-1", "addresses.json",
				"heartbeat.json", ".new-2", "cni.sock", "net-conf.json",
			}
			for _, name := range slices.Concat(files, []string{foreign}) {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if name == "" {
					continue
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := RemoveState(dir, "net-conf.json"); err != nil {
					t.Error(err)
				}
			}
			var left []string
			// may not be there
			_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && !entry.IsDir() {
					left = append(left, strings.TrimPrefix(path, dir+"/"))
				}
				return nil
			})
			if got := strings.Join(left, " "); got != foreign {
				t.Errorf("left %q, want %q", got, foreign)
			}
			if _, err := os.Stat(dir); (err == nil) != (foreign != "") {
				t.Errorf("the directory: %v", err)
			}
		})
	}
}
