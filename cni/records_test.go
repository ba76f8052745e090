package cni

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/testdisk"
)

func TestRecordsRoundTrip(t *testing.T) {
	t.Parallel()
	a, b := newAttachment("c1", "pod-a", "10.1.0.1", "fd00::1"),
		newAttachment("c2", "pod-b", "fd00::2")
	r := newRecords(t, b, a, a)
	got, bad, _ := r.ReadAll()
	diff := cmp.Diff([]Attachment{a, b}, got, cmp.Comparer(sameAddr))
	if diff != "" || len(bad) > 0 {
		t.Fatalf("bad %v, (-want +got):\n%s", bad, diff)
	}
	if one, err := r.Read("c2", "eth0"); err != nil || one.PodName != "pod-b" {
		t.Errorf("read %v and %v", one, err)
	}
	info, err := os.Stat(r.Path("c1", "eth0"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v and %v, want 0600", info.Mode(), err)
	}
	for range 2 {
		if err := r.Remove("c1", "eth0"); err != nil {
			t.Error(err)
		}
	}
	if got, _, _ := r.ReadAll(); len(got) != 1 || !r.IsGone(a) || r.IsGone(b) {
		t.Errorf("after removing c1: %v", got)
	}
}

// TestNamesNeverCollide: a dot is allowed in both halves of a name.
func TestNamesNeverCollide(t *testing.T) {
	t.Parallel()
	one, two := newAttachment("a.b", "pod-a", "10.1.0.1"), newAttachment("a", "pod-b", "10.1.0.2")
	one.IfName, two.IfName = "c@d", "b.c@d"
	one.Interface, two.Interface = InterfaceName("dev", "pod-a", "c@d"),
		InterfaceName("dev", "pod-b", "b.c@d")
	got, bad, _ := newRecords(t, one, two).ReadAll()
	if len(got) != 2 || len(bad) > 0 {
		t.Errorf("got %v and %v, want both", got, bad)
	}
}

func TestHostileRecordsAreLeftOut(t *testing.T) {
	t.Parallel()
	good := newAttachment("good", "pod-a", "10.1.0.1", "fd00::1")
	for name, c := range map[string]struct {
		file string
		make func(t *testing.T, path string)
		want string
	}{
		"empty": {"x@eth0.json", write(""), "unexpected end of JSON input"},
		"truncated": {"x@eth0.json", write(`{"containerID":"x","ifName":"et`),
			"unexpected end of JSON input"},
		"not JSON":      {"x@eth0.json", write("\x00\xff"), "invalid character"},
		"not an object": {"x@eth0.json", write(`[1,2]`), "cannot unmarshal array"},
		"null":          {"x@eth0.json", write(`null`), `it is of "/"`},
		"huge": {"x@eth0.json",
			write(`{"containerID":"` + strings.Repeat("x", maxRecordBytes) + `"}`),
			"larger than 262144 bytes"},
		"another's": {"x@eth0.json", edit(`"containerID":"x"`, `"containerID":"y"`),
			`it is of "y/eth0"`},
		"path as container": {"x@eth0.json", edit(`"containerID":"x"`, `"containerID":"../x"`),
			`it is of`},
		"path as pod": {"x@eth0.json", edit(`"podName":"pod-x"`, `"podName":"../../etc"`),
			"invalid pod name"},
		"no UID": {"x@eth0.json", edit(`"podUID":"1a2b-pod-x"`, `"podUID":""`), "invalid pod UID"},
		"another link": {"x@eth0.json", edit(`"interface":"slup`, `"interface":"eth0`),
			"isn't the pod's"},
		"no address": {"x@eth0.json", edit(`["10.1.0.9"]`, `[]`),
			"want at most one of each family"},
		"two of a family": {"x@eth0.json", edit(`["10.1.0.9"]`, `["10.1.0.8","10.1.0.9"]`),
			"want at most one of each family"},
		"not an address": {"x@eth0.json", edit(`["10.1.0.9"]`, `["10.1.0"]`), "ParseAddr"},
		"empty address":  {"x@eth0.json", edit(`["10.1.0.9"]`, `[""]`), "address invalid IP"},
		"multicast": {"x@eth0.json", edit(`["10.1.0.9"]`, `["224.0.0.1"]`),
			"address 224.0.0.1"},
		"loopback": {"x@eth0.json", edit(`["10.1.0.9"]`, `["127.0.0.1"]`),
			"address 127.0.0.1"},
		"mapped": {"x@eth0.json", edit(`["10.1.0.9"]`, `["::ffff:10.1.0.9"]`),
			"address ::ffff:10.1.0.9"},
		"zone": {"x@eth0.json", edit(`["10.1.0.9"]`, `["fd00::9%eth0"]`), "address fd00::9%eth0"},
		"MTU":  {"x@eth0.json", edit(`"mtu":1450`, `"mtu":-1`), "MTU -1"},
		"address of another": {"x@eth0.json", edit(`["10.1.0.9"]`, `["10.1.0.1"]`),
			"has the address 10.1.0.1 of good/eth0"},
		"pod of another": {"x@eth0.json",
			edit(`pod-x","podUID":"1a2b-pod-x","interface":"`+InterfaceName("dev", "pod-x", "eth0"),
				`pod-a","podUID":"1","interface":"`+good.Interface),
			"has the interface of good/eth0"},
		"a directory": {"x@eth0.json", mkdir, "not a regular file"},
		"a pipe":      {"x@eth0.json", pipe, "not a regular file"},
		"a link": {"x@eth0.json", link("/proc/self/environ"),
			"too many levels of symbolic links"},
		"other name":           {"notes.txt", write(`{}`), "not the name of a record"},
		"no interface in name": {"x.json", write(`{}`), "not the name of a record"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecords(t, good)
			path := filepath.Join(r.Dir(), c.file)
			c.make(t, path)
			got, bad, _ := r.ReadAll()
			if diff := cmp.Diff([]Attachment{good}, got, cmp.Comparer(sameAddr)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(bad) != 1 || !strings.Contains(bad[0].Error(), c.want) ||
				!strings.Contains(bad[0].Error(), c.file) {
				t.Errorf("got %v, want %s: ...%s", bad, c.file, c.want)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the file isn't ours to remove: %v", err)
			}
		})
	}
}

// edit writes a good record, of container x, with one thing changed.
func edit(from, to string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := writeJSON(path, newAttachment("x", "pod-x", "10.1.0.9")); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), from) {
			t.Fatalf("nothing to change in %s", content)
		}
		write(strings.Replace(string(content), from, to, 1))(t, path)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func pipe(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(to string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnfinishedFilesAreRemoved(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	path := filepath.Join(r.Dir(), temporary+"123")
	ofLedger := filepath.Join(r.stateDir, temporary+"456")
	write(`{"conta`)(t, path)
	write(`{"last`)(t, ofLedger)
	if got, bad, _ := r.ReadAll(); len(got) != 0 || len(bad) != 0 {
		t.Errorf("got %v and %v", got, bad)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a plugin that reads took the file from its writer: %v", err)
	}
	r.RemoveUnfinished()
	for _, file := range []string{path, ofLedger} {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a writer that died is still there: %v", file, err)
		}
	}
}

// TestFailedWriteLeavesNoFile: what can't be renamed into place is removed.
func TestFailedWriteLeavesNoFile(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	a := newAttachment("c1", "pod-a", "10.1.0.1")
	mkdir(t, r.Path("c1", "eth0"))
	if err := r.Write(a); err == nil {
		t.Error("a record took the place of a directory")
	}
	entries, err := os.ReadDir(r.Dir())
	if err != nil || len(entries) != 1 {
		t.Errorf("left %v and %v", entries, err)
	}
}

// TestRecordsAreSynced: what the disk doesn't take isn't recorded, and what is there stays.
func TestRecordsAreSynced(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	if err := errors.Join(r.MakeDirectories(),
		r.WriteLedger(Ledger{Taken: addrs("10.1.0.7")})); err != nil {
		t.Fatal(err)
	}
	for what, write := range map[string]func() error{
		"record": func() error { return r.Write(newAttachment("c1", "pod-a", "10.1.0.1")) },
		"ledger": func() error { return r.WriteLedger(Ledger{}) },
	} {
		if err := testdisk.WithoutSync(write); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: got %v, want the error of fsync", what, err)
		}
	}
	if all, bad, err := r.ReadAll(); err != nil || len(all) != 0 || len(bad) != 0 {
		t.Errorf("got %v, %v and %v", all, bad, err)
	}
	if l, err := r.ReadLedger(); err != nil || len(l.Taken) != 1 {
		t.Errorf("got %v and %v, want the ledger that was there", l, err)
	}
}

func TestHostileLedger(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"truncated": `{"last":["10.1`,
		"type":      `{"last":7}`,
		"address":   `{"taken":["10.1.0.0/24"]}`,
		"huge":      strings.Repeat(" ", maxLedgerBytes+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecords(t)
			write(content)(t, r.LedgerPath())
			got, err := r.ReadLedger()
			if err == nil || !strings.Contains(err.Error(), "reading the addresses in use") {
				t.Errorf("got %v and %v", got, err)
			}
		})
	}
	r := newRecords(t)
	if got, err := r.ReadLedger(); err != nil || len(got.Taken) != 0 {
		t.Errorf("without a ledger: %v and %v", got, err)
	}
	seven, freed := addrs("10.1.0.7")[0], 12*time.Hour
	if err := r.WriteLedger(Ledger{Taken: addrs("10.1.0.7"),
		Freed: map[netip.Addr]time.Duration{seven: freed}}); err != nil {
		t.Fatal(err)
	}
	got, err := r.ReadLedger()
	if err != nil || got.Freed[seven] != freed {
		t.Errorf("got %v and %v", got, err)
	}
}

// TestReboot: a state directory that outlives the node's pods keeps their addresses only until they
// have cooled down.
func TestReboot(t *testing.T) {
	t.Parallel()
	a, b := newAttachment("c1", "pod-a", "10.1.0.1"), newAttachment("c2", "pod-b", "10.1.0.2")
	r := newRecords(t)
	before := r
	before.BootID = "the-boot-before"
	one := addrs("10.1.0.1")
	ofBefore := Ledger{Last: addrs("10.1.0.7"), Taken: one,
		Freed: map[netip.Addr]time.Duration{one[0]: 12 * time.Hour}}
	if err := errors.Join(before.Write(a), r.Write(b), before.WriteLedger(ofBefore)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read("c1", "eth0"); !errors.Is(err, errOtherBoot) {
		t.Errorf("reading the record of before: %v", err)
	}
	got, bad, _ := r.ReadAll()
	if diff := cmp.Diff([]Attachment{b}, got, cmp.Comparer(sameAddr)); diff != "" || len(bad) > 0 {
		t.Errorf("bad %v, (-want +got):\n%s", bad, diff)
	}
	if !r.IsGone(a) {
		t.Error("the record of before is still there")
	}
	l, err := r.ReadLedger()
	if err != nil || len(l.Taken) != 1 || len(l.Freed) > 0 || len(l.Last) != 1 {
		t.Errorf("the ledger of before is %+v and %v, want the last given and what was taken, "+
			"without a time", l, err)
	}
	if id := bootID(); len(id) != 36 || id != r.BootID {
		t.Errorf("the boot is %q", id)
	}
}

// TestRecordOfAnOlderAgent: one without a boot counts.
func TestRecordOfAnOlderAgent(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	err := writeJSON(r.Path("c1", "eth0"), newAttachment("c1", "pod-a", "10.1.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, bad, _ := r.ReadAll(); len(got) != 1 || len(bad) > 0 {
		t.Errorf("got %v and %v", got, bad)
	}
}

// TestRemoveMissingRecord: a missing record needs no removal, on any file system; one that is there
// and stays is an error.
func TestRemoveMissingRecord(t *testing.T) {
	t.Parallel()
	d := testdisk.New(t)
	r := OpenRecords(d.Dir())
	if err := r.Write(newAttachment("c1", "pod-a", "10.1.0.2")); err != nil {
		t.Fatal(err)
	}
	d.ReadOnly(true)
	if err := r.Remove("c2", "eth0"); err != nil {
		t.Errorf("one that isn't there: %v", err)
	}
	if err := r.Remove("c1", "eth0"); !errors.Is(err, unix.EROFS) {
		t.Errorf("one that is there: %v, want an error", err)
	}
}
