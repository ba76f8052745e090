package names_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/internal/names"
)

// TestNamesStay: an agent of another version finds what this one made.
func TestNamesStay(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		names.Table: "sluice", names.PodLink: "slup", names.ShapingLink: "slub",
		names.TrialLink: "slprobe",
		names.Tunnel:    "sluice.", names.PodLinks: "slup*",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if names.PodRoutes != 83 || names.NodeRoutes != 84 || names.TrialRoutes != 85 {
		t.Errorf("the routes' protocols are %d, %d and %d", names.PodRoutes, names.NodeRoutes,
			names.TrialRoutes)
	}
}

// TestSpelledOnce: no other code, apart from tests, spells the name of a link.
func TestSpelledOnce(t *testing.T) {
	t.Parallel()
	spelled := regexp.MustCompile("[\"`](slup|slub|slprobe)")
	var files int
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			filepath.Base(path) == "names.go":
			return nil
		}
		files++
		code, err := os.ReadFile(path)
		if found := spelled.Find(code); found != nil {
			t.Errorf("%s spells %s", path, found)
		}
		return err
	})
	if err != nil || files < 100 {
		t.Errorf("%d files were read: %v", files, err)
	}
}
