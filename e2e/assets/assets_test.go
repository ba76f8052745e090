package assets

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Not parallel: they set the environment, or the working directory.

func TestGivenAssetsAreUsed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	if control, err := ControlPlane(t.Context(), t.Output()); err == nil {
		t.Errorf("an empty folder has %+v", control)
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	control, err := ControlPlane(t.Context(), t.Output())
	if err != nil || control.Etcd != filepath.Join(dir, "etcd") || control.Kubectl != "" {
		t.Errorf("got %+v (%v)", control, err)
	}
}

func TestPins(t *testing.T) {
	repo, err := findRepository()
	if err != nil {
		t.Fatal(err)
	}
	p, err := readPins(repo)
	if err != nil || !strings.HasPrefix(p.kubernetes, "v"+p.major+"."+p.minor+".") ||
		!strings.HasPrefix(p.etcd, "v3.") {
		t.Errorf("got %+v (%v)", p, err)
	}
	if text, err := ReadFile("config/rbac/role.yaml"); err != nil ||
		!bytes.Contains(text, []byte("kind: ClusterRole")) {
		t.Errorf("got %q (%v)", text, err)
	}
}

// Kubernetes' own specs are those of the version that clusters run.
func TestUpstreamIsOfThatVersion(t *testing.T) {
	repo, err := findRepository()
	if err != nil {
		t.Fatal(err)
	}
	clusters, err := NodeKubernetesVersion()
	if err != nil {
		t.Fatal(err)
	}
	specs, err := moduleVersion(repo, "upstream", kubernetesModule)
	if err != nil || specs != clusters {
		t.Errorf("the specs are of %q (%v), clusters run %q", specs, err, clusters)
	}
}

func TestOutsideOfTheRepository(t *testing.T) {
	t.Chdir(t.TempDir())
	if repo, err := findRepository(); err == nil {
		t.Errorf("found %s", repo)
	}
}

// Of two processes that make the same thing one waits for the other; who makes something else, or
// finds it made, doesn't.
func TestLocks(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("KUBEBUILDER_ASSETS", "")
	repo, err := findRepository()
	if err != nil {
		t.Fatal(err)
	}
	pins, err := readPins(repo)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := cacheFolder()
	if err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(cache, "control-plane-"+pins.key)
	unlock, err := lock(t.Context(), t.Output(), made, "it")
	if err != nil {
		t.Fatal(err)
	}
	other, err := lock(t.Context(), t.Output(), made+"-not", "something else")
	if err != nil {
		t.Fatal(err)
	}
	other()
	busy, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := ControlPlane(busy, t.Output()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("what isn't made yet is waited for: %v", err)
	}
	if err := os.Mkdir(made, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if err := os.WriteFile(filepath.Join(made, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if control, err := ControlPlane(soon, t.Output()); err != nil ||
		control.Etcd != filepath.Join(made, "etcd") {
		t.Errorf("what is made is waited for: %+v (%v)", control, err)
	}
	unlock()
	again, err := lock(t.Context(), t.Output(), made, "it")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	repo, err := findRepository()
	if err != nil {
		t.Fatal(err)
	}
	build := goBuild{what: "nothing", module: repo.file("e2e"),
		packages: []string{"./no/such/package"}, output: t.TempDir() + "/"}
	if err := build.run(t.Context(), t.Output()); err == nil ||
		!strings.Contains(err.Error(), "building nothing") ||
		!strings.Contains(err.Error(), "no/such/package") {
		t.Errorf("got %v", err)
	}
}
