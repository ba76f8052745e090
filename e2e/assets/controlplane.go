package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Control is the paths of the control plane's programs.
type Control struct {
	Etcd, APIServer string
	Kubectl         string // empty if there is none
}

// ControlPlane returns the control plane's programs. Steps that take long go to progress, a line
// each. Several processes may call it at once; one of them does the work, and a process that finds
// it done doesn't wait.
func ControlPlane(ctx context.Context, progress io.Writer) (Control, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		control, err := controlIn(dir)
		if err != nil {
			return Control{}, fmt.Errorf("KUBEBUILDER_ASSETS is set: %w", err)
		}
		return control, nil
	}
	repo, err := findRepository()
	if err != nil {
		return Control{}, err
	}
	cache, err := cacheFolder()
	if err != nil {
		return Control{}, err
	}
	pins, err := readPins(repo)
	if err != nil {
		return Control{}, err
	}
	dir := filepath.Join(cache, "control-plane-"+pins.key)
	if control, err := controlIn(dir); err == nil {
		return control, nil
	}
	unlock, err := lock(ctx, progress, dir, "the control plane")
	if err != nil {
		return Control{}, err
	}
	defer unlock()
	if control, err := controlIn(dir); err == nil { // another process has just made it
		return control, nil
	}
	err = downloadControlPlane(ctx, progress, repo, pins, cache, dir)
	if err != nil {
		linef(progress, "building the control plane from Go modules: %v", err)
		err = buildControlPlane(ctx, progress, repo, pins, dir)
	}
	if err != nil {
		return Control{}, err
	}
	return controlIn(dir)
}

// controlIn returns the programs in dir. Only kubectl may be missing.
func controlIn(dir string) (Control, error) {
	control := Control{
		Etcd:      filepath.Join(dir, "etcd"),
		APIServer: filepath.Join(dir, "kube-apiserver"),
		Kubectl:   filepath.Join(dir, "kubectl"),
	}
	for _, path := range []string{control.Etcd, control.APIServer} {
		if _, err := os.Stat(path); err != nil {
			return Control{}, fmt.Errorf("looking for a program of the control plane: %w", err)
		}
	}
	if _, err := os.Stat(control.Kubectl); errors.Is(err, os.ErrNotExist) {
		control.Kubectl = ""
	}
	return control, nil
}

// buildControlPlane builds everything into dir, which appears when it is complete.
func buildControlPlane(ctx context.Context, progress io.Writer, repo repository, pins pins,
	dir string) error {
	unfinished := dir + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	builds := []goBuild{
		{
			what:     fmt.Sprintf("etcd %s (then cached)", pins.etcd),
			module:   repo.file("e2e", "assets", "etcd"),
			packages: []string{etcdModule},
			output:   filepath.Join(unfinished, "etcd"),
			ldflags:  small,
		}, {
			what:   fmt.Sprintf("kube-apiserver and kubectl %s (then cached)", pins.kubernetes),
			module: repo.file("e2e", "assets", "kubernetes"),
			packages: []string{kubernetesModule + "/cmd/kube-apiserver",
				kubernetesModule + "/cmd/kubectl"},
			output:  unfinished + "/",
			ldflags: kubernetesLdflags(pins.kubernetes),
		},
	}
	for _, build := range builds {
		if err := build.run(ctx, progress); err != nil {
			return err
		}
	}
	return os.Rename(unfinished, dir)
}

// kubernetesLdflags set the version of Kubernetes' programs, such as v1.36.3.
func kubernetesLdflags(gitVersion string) string {
	const version = "k8s.io/component-base/version"
	major, rest, _ := strings.Cut(strings.TrimPrefix(gitVersion, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return fmt.Sprintf(
		"-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s", version,
		gitVersion, major, minor)
}
