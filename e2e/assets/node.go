package assets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// NodeKubernetesVersion is the version of Kubernetes that clusters run, such as v1.36.3.
func NodeKubernetesVersion() (string, error) {
	repo, err := findRepository()
	if err != nil {
		return "", err
	}
	return moduleVersion(repo, "kubernetes", kubernetesModule)
}

// Node is what the image of a kind node is made of, but for Debian's packages.
type Node struct {
	Kubernetes string // the version of it, such as v1.36.3
	Etcd       string // v3.6.16
	CoreDNS    string // v1.14.2
	// folder of kubeadm, kubelet, kube-apiserver, etcd, containerd, coredns, loopback, pause and so
	// on
	Programs  string
	KindFiles string // folder of the files that kind's own node images have, as from /
}

// NodeKey changes when a Node, made now, would be another.
func NodeKey() (string, error) {
	repo, err := findRepository()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, folder := range []string{"kubernetes", "etcd", "containerd", "coredns", "kind",
		"plugins"} {
		text, err := os.ReadFile(repo.file("e2e", "assets", folder, "go.mod"))
		if err != nil {
			return "", err
		}
		_, _ = sum.Write(text) // a hash takes anything
	}
	return runtime.GOARCH + "-" + hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// NodePrograms builds what a Node has, which takes a quarter of an hour on two cores the first
// time. Progress says so. Unlike a lab's, these programs aren't kept: what they are for is.
func NodePrograms(ctx context.Context, progress io.Writer, dir string) (Node, error) {
	repo, err := findRepository()
	if err != nil {
		return Node{}, err
	}
	cache, err := cacheFolder()
	if err != nil {
		return Node{}, err
	}
	// two at a time would take twice as long
	unlock, err := lock(ctx, progress, filepath.Join(cache, "node-programs"), "what a Node has")
	if err != nil {
		return Node{}, err
	}
	defer unlock()
	node := Node{Programs: dir}
	for _, module := range []struct {
		folder, path string
		version      *string
	}{
		{"kubernetes", kubernetesModule, &node.Kubernetes},
		{"etcd", etcdModule, &node.Etcd},
		{"coredns", "github.com/coredns/coredns", &node.CoreDNS},
	} {
		if *module.version, err = moduleVersion(repo, module.folder, module.path); err != nil {
			return Node{}, err
		}
	}
	builds, err := nodeBuilds(repo, node)
	if err != nil {
		return Node{}, err
	}
	for _, b := range builds {
		linef(progress, "building %s", b.what)
		if err := b.run(ctx, progress); err != nil {
			return Node{}, err
		}
	}
	if err := buildPause(ctx, repo, node); err != nil {
		return Node{}, err
	}
	kind, err := moduleFolder(ctx, repo.file("e2e", "assets", "kind"), "sigs.k8s.io/kind")
	if err != nil {
		return Node{}, err
	}
	node.KindFiles = filepath.Join(kind, "images", "base", "files")
	return node, nil
}

func nodeBuilds(repo repository, node Node) ([]goBuild, error) {
	const containerdModule = "github.com/containerd/containerd/v2"
	containerd, err := moduleVersion(repo, "containerd", containerdModule)
	if err != nil {
		return nil, err
	}
	kubernetes := goBuild{
		what:    fmt.Sprintf("Kubernetes %s (then cached)", node.Kubernetes),
		module:  repo.file("e2e", "assets", "kubernetes"),
		output:  node.Programs + "/",
		ldflags: kubernetesLdflags(node.Kubernetes),
	}
	for _, name := range []string{
		"kubeadm", "kubelet", "kubectl", "kube-apiserver", "kube-controller-manager",
		"kube-scheduler", "kube-proxy",
	} {
		kubernetes.packages = append(kubernetes.packages, kubernetesModule+"/cmd/"+name)
	}
	return []goBuild{
		kubernetes,
		{
			what:     fmt.Sprintf("etcd %s (half a minute)", node.Etcd),
			module:   repo.file("e2e", "assets", "etcd"),
			packages: []string{etcdModule},
			output:   filepath.Join(node.Programs, "etcd"),
			ldflags:  small,
		},
		{
			what:   fmt.Sprintf("containerd %s (three minutes)", containerd),
			module: repo.file("e2e", "assets", "containerd"),
			packages: []string{containerdModule + "/cmd/containerd",
				containerdModule + "/cmd/containerd-shim-runc-v2", containerdModule + "/cmd/ctr"},
			output:  node.Programs + "/",
			ldflags: small + " -X " + containerdModule + "/version.Version=" + containerd,
		},
		{
			what:     fmt.Sprintf("CoreDNS %s (five minutes)", node.CoreDNS),
			module:   repo.file("e2e", "assets", "coredns"),
			packages: []string{"github.com/coredns/coredns"},
			output:   node.Programs + "/",
			ldflags:  small,
		},
		stockPlugins(repo, node.Programs, "main/loopback"),
	}, nil
}

// buildPause builds the program that keeps a pod's namespaces, from the C source that Kubernetes
// has it in.
func buildPause(ctx context.Context, repo repository, node Node) error {
	kubernetes, err := moduleFolder(ctx, repo.file("e2e", "assets", "kubernetes"), kubernetesModule)
	if err != nil {
		return err
	}
	source := filepath.Join(kubernetes, "build", "pause", "linux", "pause.c")
	cmd := exec.CommandContext(ctx, "gcc", "-Os", "-Wall", "-static", "-DVERSION="+node.Kubernetes,
		"-o", filepath.Join(node.Programs, "pause"), source)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building pause: %w\n%s", err, output)
	}
	return nil
}

// moduleFolder is where the files of a module are, which another requires. It downloads them if it
// must.
func moduleFolder(ctx context.Context, in, module string) (string, error) {
	if _, err := goOutput(ctx, in, "mod", "download", module); err != nil {
		return "", fmt.Errorf("downloading module %s: %w", module, err)
	}
	folder, err := goOutput(ctx, in, "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", fmt.Errorf("looking for module %s: %w", module, err)
	}
	return folder, nil
}

// goOutput is what go prints in a folder.
func goOutput(ctx context.Context, in string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stderr = in, os.Stderr
	output, err := cmd.Output()
	return strings.TrimSpace(string(output)), err
}

// moduleVersion is the version of a module that the module in a folder beside this package
// requires.
func moduleVersion(repo repository, folder, path string) (string, error) {
	file := repo.file("e2e", "assets", folder, "go.mod")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading versions: %w", err)
	}
	found := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(path) + ` (v\S+)`).
		FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s: no version of %s", file, path)
	}
	return string(found[1]), nil
}
