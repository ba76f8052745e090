// Package memorygroup limits the memory of processes that a test starts, as a Kubernetes node does
// by a container's limit: by a control group, of version 1 or 2. What the kernel has for such a
// process, nftables rules among it, counts as well.
package memorygroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/test/needroot"
)

// Group is a control group that a test has made. It has no limit at first.
type Group struct {
	Dir string

	usage, limit, events string // names of files
	swap                 string // likewise, of what may be swapped; "": there is no such file
}

// versions are where a group can be made, and how its files are called there.
var versions = []Group{
	{"/sys/fs/cgroup/memory", "memory.usage_in_bytes", "memory.limit_in_bytes",
		"memory.oom_control", ""},
	{"/sys/fs/cgroup", "memory.current", "memory.max", "memory.events", "memory.swap.max"},
}

// New makes a group, which is removed at the end of the test; its processes must have ended then.
// Where no group can be made, the test is skipped.
func New(t testing.TB) Group {
	t.Helper()
	needroot.Skip(t)
	var errs []error
	for _, g := range versions {
		//nolint:usetesting // it is removed by rmdir alone
		dir, err := os.MkdirTemp(g.Dir, "sluice-test-")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		g.Dir = dir
		t.Cleanup(func() { g.remove(t) })
		if _, err := os.Stat(filepath.Join(g.Dir, g.limit)); err != nil {
			errs = append(errs, err)
			continue
		}
		if g.swap != "" {
			if err := os.WriteFile(filepath.Join(g.Dir, g.swap), []byte("0"), 0o600); err != nil &&
				!errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		return g
	}
	t.Skipf("needs a control group that limits memory: %v", errors.Join(errs...))
	return Group{}
}

// remove waits for the kernel, which lets go of a group some time after its last process.
func (g Group) remove(t testing.TB) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		err := os.Remove(g.Dir)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("removing the control group: %v", err)
			return
		}
	}
}

// Launcher is a command that becomes, within the group, the command that is given behind it.
func (g Group) Launcher() []string {
	return []string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`,
		filepath.Join(g.Dir, "cgroup.procs")}
}

// Usage is what the group's processes have now, in bytes.
func (g Group) Usage() (int64, error) {
	text, err := os.ReadFile(filepath.Join(g.Dir, g.usage))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// Limit is what they may have from now on, in bytes.
func (g Group) Limit(bytes int64) error {
	return os.WriteFile(filepath.Join(g.Dir, g.limit), []byte(strconv.FormatInt(bytes, 10)), 0o600)
}

// Kills is how many of the group's processes the kernel has killed for their memory.
func (g Group) Kills() (int, error) {
	text, err := os.ReadFile(filepath.Join(g.Dir, g.events))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return strconv.Atoi(number)
		}
	}
	return 0, fmt.Errorf("%s has no line oom_kill", filepath.Join(g.Dir, g.events))
}
