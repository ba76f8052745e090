package kind

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/sluice-net/sluice/e2e/assets"
)

// makeImages writes the images of the cluster's components into a folder. Root is where
// kube-proxy's helpers are taken from.
func makeImages(ctx context.Context, progress io.Writer, node assets.Node, root, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tool := filepath.Join(node.Programs, "image-tool")
	sources, err := assets.File("hack", "image")
	if err != nil {
		return err
	}
	if _, err := command(ctx, "go", "build", "-C", sources, "-o", tool, "."); err != nil {
		return err
	}
	required, err := requiredImages(ctx, node)
	if err != nil {
		return err
	}
	for _, image := range required {
		name := componentOf(image)
		files := []string{filepath.Join(node.Programs, name) + "=" + componentPath(name)}
		if name == "kube-proxy" {
			helpers := filepath.Join(dir, "kube-proxy-helpers")
			if err := proxyHelpers(ctx, root, helpers); err != nil {
				return err
			}
			files = append(files, helpers+"=/")
		}
		args := []string{
			"-output", filepath.Join(dir, name+".tar"), "-tag", image, "-arch", runtime.GOARCH,
			"-entrypoint", componentPath(name), "-env",
			"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		}
		linef(progress, "making %s", image)
		if _, err := command(ctx, tool, append(args, files...)...); err != nil {
			return err
		}
	}
	return nil
}

// requiredImages are those that kubeadm makes a cluster of.
func requiredImages(ctx context.Context, node assets.Node) ([]string, error) {
	list, err := command(ctx, filepath.Join(node.Programs, "kubeadm"), "config", "images", "list",
		"--kubernetes-version", node.Kubernetes)
	return strings.Fields(list), err
}

// requiredImage is the one of a component.
func requiredImage(ctx context.Context, node assets.Node, component string) (string, error) {
	required, err := requiredImages(ctx, node)
	if err != nil {
		return "", err
	}
	for _, image := range required {
		if componentOf(image) == component {
			return image, nil
		}
	}
	return "", fmt.Errorf("kubeadm names no image of %s: %q", component, required)
}

// componentOf is "etcd" of "registry/etcd:3.6".
func componentOf(image string) string {
	name, _, _ := strings.Cut(path.Base(image), ":")
	return name
}

// componentPath is where the program of a component is in its image: where the manifests that
// kubeadm writes look for it.
func componentPath(name string) string {
	switch name {
	case "coredns", "pause":
		return "/" + name
	}
	return "/usr/local/bin/" + name
}

//go:embed proxy-helpers.sh
var proxyHelpersScript []byte

// proxyHelpers copies nft and iptables, which kube-proxy runs, and the libraries that they load.
func proxyHelpers(ctx context.Context, root, dir string) error {
	_, err := commandIn(ctx, bytes.NewReader(proxyHelpersScript), "bash", "-s", root, dir)
	return err
}
