package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDist: what is committed in dist/ is what config/ renders to.
func TestDist(t *testing.T) {
	t.Parallel()
	rendered := t.TempDir()
	if _, err := run(t.Context(), "", "hack/render", rendered); err != nil {
		t.Fatal(err)
	}
	committed := filepath.Join(repository, "dist")
	want, got := manifests(t, rendered), manifests(t, committed)
	if !slices.Equal(want, got) {
		t.Errorf("dist/ has %q, and hack/render makes %q", got, want)
	}
	for _, name := range want {
		d := cmp.Diff(read(t, filepath.Join(committed, name)),
			read(t, filepath.Join(rendered, name)))
		if d != "" {
			t.Errorf("dist/%s is stale: run make install-manifest (-committed +rendered):\n%s",
				name, d)
		}
	}
}

// manifests are the names of a folder's manifests.
func manifests(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".yaml") {
			names = append(names, entry.Name())
		}
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
