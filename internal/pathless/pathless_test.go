package pathless_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-net/sluice/internal/pathless"
)

// TestError: the same fault of files with different names has one text, and its cause is kept.
func TestError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(name string) error { _, err := os.Open(filepath.Join(dir, name)); return err }
	rename := func(name string) error {
		return os.Rename(filepath.Join(dir, name), filepath.Join(dir, "target"))
	}
	for want, fault := range map[string]func(name string) error{
		"open: no such file or directory":   open,
		"rename: no such file or directory": rename,
	} {
		for _, name := range []string{"a", "b"} {
			got := pathless.Error(fmt.Errorf("writing: %w", fault(name)))
			if got == nil || got.Error() != want || !errors.Is(got, fs.ErrNotExist) {
				t.Errorf("got %v, want %s", got, want)
			}
		}
	}
	other := errors.New("other")
	if got := pathless.Error(other); !errors.Is(got, other) || got.Error() != "other" {
		t.Errorf("got %v, want it as it is", got)
	}
	if got := pathless.Error(nil); got != nil {
		t.Errorf("got %v for no error", got)
	}
}
