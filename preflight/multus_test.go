package preflight

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMultusFirst: Multus before Sluice is a set-up that works if it delegates to Sluice, as
// TestMultus of e2e/foreign shows; and nothing else passes for it.
func TestMultusFirst(t *testing.T) {
	t.Parallel()
	shim := `{"type": "multus-shim", "clusterNetwork": "/etc/cni/net.d/05-sluice.conflist"}`
	for name, c := range map[string]struct {
		content string
		want    Status
	}{
		"a plugin":            {`{"type": "multus", "delegates": [{"type": "sluice"}]}`, Warn},
		"with a daemon":       {shim, Warn},
		"a list":              {`{"plugins": [{"type": "multus"}, {"type": "tuning"}]}`, Warn},
		"another's":           {`{"type": "bridge", "name": "multus"}`, Fail},
		"another's list":      {`{"plugins": [{"type": "bridge"}, {"type": "multus"}]}`, Fail},
		"another's with both": {`{"type": "multus", "plugins": [{"type": "bridge"}]}`, Fail},
		"no text":             {`{"type": 5}`, Fail},
		"no object":           {`["multus"]`, Fail},
		"no JSON":             {`{"type": "multus"`, Fail},
		"empty":               {"", Fail},
		"deep":                {strings.Repeat("[", mostConfiguration), Fail},
		"too long":            {shim + strings.Repeat(" ", mostConfiguration), Fail},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{ConfDir: t.TempDir()}
			file := filepath.Join(o.ConfDir, "00-multus.conf")
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			says := "00-multus.conf comes before"
			if c.want == Warn {
				says = "see that it delegates to 05-sluice.conflist"
			}
			expect(t, name, checkConfigurations(o), c.want, says)
		})
	}
}

// TestMultusNoFile: what isn't a file, or is missing, is nobody's, and isn't waited for.
func TestMultusNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, loop := filepath.Join(dir, "fifo"), filepath.Join(dir, "loop")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 1)
	go func() {
		done <- isMultus(fifo) || isMultus(loop) || isMultus("/dev/zero") || isMultus(dir) ||
			isMultus(filepath.Join(dir, "missing"))
	}()
	select {
	case is := <-done:
		if is {
			t.Error("one is taken for a configuration of Multus")
		}
	case <-time.After(time.Minute):
		t.Error("it waits")
	}
}

// TestMultusAndOthers: a configuration behind Multus' and before ours is named, as Multus' own
// installer would take that one.
func TestMultusAndOthers(t *testing.T) {
	t.Parallel()
	names := []string{"00-multus.conf", "01-other.conf"}
	expect(t, "both", judgeConfigurations(Options{}, files{before: names, multus: true}, nil), Warn,
		"01-other.conf")
	expect(t, "the other", judgeConfigurations(Options{}, files{before: names[1:]}, nil), Fail)
}
