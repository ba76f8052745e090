package controllers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/test/testdisk"
)

// TestNodeFilesOnBadDisk: what the agent can't write on the node is reported once, with its end,
// and what is there stays whole.
func TestNodeFilesOnBadDisk(t *testing.T) {
	t.Parallel()
	for _, fault := range testdisk.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			disk := testdisk.New(t)
			recorder := events.NewFakeRecorder(100)
			d := &Datapath{
				ConfDir: disk.Dir(), SubnetFile: filepath.Join(disk.Dir(), "subnet.env"),
				committed: true,
				Events:    notify.NodeEvents{Node: "n1", Recorder: recorder}, Log: logr.Discard(),
			}
			d.state.Ready = true
			reported := func(want ...string) {
				t.Helper()
				d.keepFiles()
				d.keepFiles() // reports nothing more
				if len(recorder.Events) != len(want) {
					t.Fatalf("%d Events, want %d", len(recorder.Events), len(want))
				}
				for _, says := range want {
					got := <-recorder.Events
					if !strings.Contains(got, says) || !strings.Contains(got, fault.Says) ||
						strings.Contains(got, ".new") {
						t.Errorf("reported %q, want it to say %q, %q and no passing name",
							got, says,
							fault.Says)
					}
				}
			}
			reported()
			conflist := filepath.Join(disk.Dir(), "05-sluice.conflist")
			before := contentOf(t, conflist)

			fault.Set(disk, true)
			reported()               // all is as it should be
			d.state.MTU = 1400       // now it isn't
			d.Conflist.Socket = "/x" // likewise
			reported("Warning NodeFileNotWritten The subnet file can't be written, what is there "+
				"stays as it is: writing "+d.SubnetFile+": ",
				"Warning NodeFileNotWritten The CNI configuration can't be written, what is "+
					"there stays as it is: writing the network configuration "+conflist)
			if now := contentOf(t, conflist); now != before {
				t.Errorf("the configuration is %s, and was %s", now, before)
			}
			entries, err := os.ReadDir(disk.Dir())
			if err != nil || len(entries) > 3 { // the third is what fills the disk
				t.Errorf("there are %v, error %v", entries, err)
			}

			fault.Set(disk, false)
			d.installed = false // what is there is another agent's, and no edit
			reported("Normal NodeFileWritten", "Normal NodeFileWritten")
			if now := contentOf(t, conflist); !strings.Contains(now, `"socket": "/x"`) ||
				!strings.Contains(contentOf(t, d.SubnetFile), "MTU=1400") {
				t.Errorf("not written: %s", now)
			}
		})
	}
}

// TestNodeFilesInTheWay: a target that can't be replaced is reported once, however often it is
// tried.
func TestNodeFilesInTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	recorder := events.NewFakeRecorder(100)
	d := &Datapath{
		ConfDir: dir, SubnetFile: filepath.Join(dir, "subnet.env"),
		RunDir: filepath.Join(dir, "run"), committed: true,
		Events: notify.NodeEvents{Node: "n1", Recorder: recorder}, Log: logr.Discard(),
	}
	d.state.Ready = true
	inTheWay := []string{filepath.Join(dir, "05-sluice.conflist"), d.SubnetFile,
		filepath.Join(d.RunDir, "NetworkManager/conf.d/05-sluice.conf")}
	for _, path := range inTheWay {
		if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		d.keepFiles()
	}
	if len(recorder.Events) != len(inTheWay) {
		t.Errorf("%d Events, want %d", len(recorder.Events), len(inTheWay))
	}
	for len(recorder.Events) > 0 {
		if got := <-recorder.Events; !strings.HasPrefix(got, "Warning NodeFileNotWritten") ||
			!strings.HasSuffix(got, "rename: file exists") {
			t.Errorf("reported %q", got)
		}
	}
	for _, path := range inTheWay {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	d.keepFiles()
	for range inTheWay {
		if len(recorder.Events) == 0 {
			t.Fatal("the end isn't reported")
		}
		if got := <-recorder.Events; !strings.HasPrefix(got, "Normal NodeFileWritten") {
			t.Errorf("reported %q", got)
		}
	}
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path) //nolint:gosec // the test's own file
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
