package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"

	"github.com/sluice-net/sluice/test/memorygroup"
)

// TestGarbage: what is collected when, unless GOGC says otherwise.
//
//nolint:paralleltest // the percentage is everybody's
func TestGarbage(t *testing.T) {
	was := debug.SetGCPercent(100)
	defer debug.SetGCPercent(was)
	for setting, want := range map[string]int{"70": 100, "": garbagePercent} {
		debug.SetGCPercent(100)
		t.Setenv("GOGC", setting)
		limitGarbage()
		if got := debug.SetGCPercent(100); got != want {
			t.Errorf("GOGC=%s: %d %%, want %d", setting, got, want)
		}
	}
}

// TestMemoryLimit: the garbage collector knows the container's limit, unless GOMEMLIMIT says
// otherwise.
//
//nolint:paralleltest // in the process that it starts, the limit is everybody's
func TestMemoryLimit(t *testing.T) {
	const env = "SLUICE_TEST_MEMORY_LIMIT"
	if os.Getenv(env) != "" {
		setMemoryLimit(testr.New(t))
		fmt.Println("limit", debug.SetMemoryLimit(-1))
		return
	}
	group := memorygroup.New(t)
	const limit = 5 << 28
	for _, c := range []struct {
		limit   int64
		setting string
		want    int64
	}{
		{math.MaxInt64 &^ 0xfff, "NOTHING=", math.MaxInt64},
		{limit, "NOTHING=", limit / 5 * 4},
		{limit, "GOMEMLIMIT=4096", 4096},
	} {
		if err := group.Limit(c.limit); err != nil {
			t.Fatal(err)
		}
		launcher := append(group.Launcher(), os.Args[0], "-test.run=^TestMemoryLimit$")
		cmd := exec.Command(launcher[0], launcher[1:]...)
		cmd.Env = append(os.Environ(), env+"=1", c.setting)
		out, err := cmd.CombinedOutput()
		if want := fmt.Sprintln("limit", c.want); err != nil ||
			!strings.Contains(string(out), want) {
			t.Errorf("limit %d, %s: %v, got\n%swant %s", c.limit, c.setting, err, out, want)
		}
	}
}
