package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/needroot"
	"github.com/sluice-net/sluice/test/testdisk"
)

// newFile has the content "old", in a directory of its own.
func newFile(t *testing.T) File {
	t.Helper()
	f := File{Path: filepath.Join(t.TempDir(), "file"), Passing: ".new-*", Mode: 0o640}
	if err := f.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	return f
}

// mustHold checks what the file holds, and that nothing is beside it.
func (f File) mustHold(t *testing.T, want string) {
	t.Helper()
	got, err := os.ReadFile(f.Path)
	if err != nil || string(got) != want {
		t.Errorf("got %q and %v, want %q", got, err, want)
	}
	info, err := os.Lstat(f.Path)
	if err != nil || info.Mode() != f.Mode {
		t.Errorf("got %v and %v, want mode %v", info, err, f.Mode)
	}
	entries, err := os.ReadDir(filepath.Dir(f.Path))
	if err != nil || len(entries) != 1 {
		t.Errorf("there are %v (%v)", entries, err)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	for _, passing := range []string{".new-*", ".new"} {
		f.Passing = passing
		if err := f.Write([]byte(passing)); err != nil {
			t.Error(err)
		}
		f.mustHold(t, passing)
	}
	failed := errors.New("failed")
	err := f.WriteBy(func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(err, failed)
	})
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	f.mustHold(t, ".new")
}

// TestWriteOfLinks: a link in the file's place is replaced, and one in the passing file's isn't
// followed.
func TestWriteOfLinks(t *testing.T) {
	t.Parallel()
	other := newFile(t)
	for passing, succeeds := range map[string]bool{".new-*": true, ".new": false} {
		f := newFile(t)
		f.Passing = passing
		for _, name := range []string{f.Path, filepath.Join(filepath.Dir(f.Path), ".new")} {
			_ = os.Remove(name) // it need not be there
			if err := os.Symlink(other.Path, name); err != nil {
				t.Fatal(err)
			}
		}
		err := f.Write([]byte("new"))
		info, _ := os.Lstat(f.Path)
		if (err == nil) != succeeds || info.Mode().IsRegular() != succeeds {
			t.Errorf("%s: got %v and %v", passing, err, info.Mode())
		}
		other.mustHold(t, "old")
	}
}

// TestErrorsAreAlike: the same fault has the same text each time.
func TestErrorsAreAlike(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	f.Path = filepath.Join(filepath.Dir(f.Path), "none", "file")
	if err := f.Write(nil); err == nil || err.Error() != "open: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

// TestContentIsSynced: content that the disk doesn't take gets no name.
func TestContentIsSynced(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	err := testdisk.WithoutSync(func() error { return f.Write([]byte("new")) })
	if !errors.Is(err, unix.EIO) || !strings.HasPrefix(err.Error(), "sync") {
		t.Errorf("got %v, want the error of fsync", err)
	}
	f.mustHold(t, "old")
}

// TestNameIsSynced: the directory is opened to be synced, which fails here. The control is a
// directory that can be read.
func TestNameIsSynced(t *testing.T) {
	t.Parallel()
	needroot.Skip(t)
	const nobody = 65534
	for mode, want := range map[os.FileMode]error{0o700: nil, 0o300: unix.EACCES} {
		f := newFile(t)
		dir, err := os.Open(filepath.Dir(f.Path))
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		if err := errors.Join(dir.Chown(nobody, nobody), dir.Chmod(mode)); err != nil {
			t.Fatal(err)
		}
		elsewhere := f // by a path that nobody can walk
		elsewhere.Path = fmt.Sprintf("/proc/self/fd/%d/file", dir.Fd())
		err = testdisk.OnThread(func() error {
			return errors.Join(unix.Setfsuid(nobody), elsewhere.Write([]byte("new")))
		})
		if !errors.Is(err, want) {
			t.Errorf("mode %v: got %v, want %v", mode, err, want)
		}
		f.mustHold(t, "new")
	}
}
