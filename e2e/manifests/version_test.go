package manifests

import (
	"path/filepath"
	"regexp"
	"testing"
)

// TestVersion: an image that make builds is the one that every manifest names.
func TestVersion(t *testing.T) {
	t.Parallel()
	version := versionIn(t, "Makefile", `(?m)^export VERSION \?= (v\S+)$`)
	for file, pattern := range map[string]string{
		"config/agent/kustomization.yaml":     `newTag: (\S+)`,
		"config/uninstall/kustomization.yaml": `newTag: (\S+)`,
		"config/check/kustomization.yaml":     `newTag: (\S+)`,
		"charts/sluice/Chart.yaml":            `(?m)^appVersion: (\S+)$`,
		"hack/build-image":                    `(?m)^VERSION=\$\{VERSION:-(\S+)\}$`,
	} {
		if got := versionIn(t, file, pattern); got != version {
			t.Errorf("%s: %s, and the Makefile has %s", file, got, version)
		}
	}
	if got := "v" + versionIn(t, "charts/sluice/Chart.yaml",
		`(?m)^version: (\S+)$`); got != version {
		t.Errorf("the chart is %s, and what it installs %s", got, version)
	}
}

func versionIn(t *testing.T, file, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).
		FindStringSubmatch(read(t, filepath.Join(repository, filepath.FromSlash(file))))
	if found == nil {
		t.Fatalf("%s: nothing like %s", file, pattern)
	}
	return found[1]
}
