package kind

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-net/sluice/e2e/assets"
)

// debianPackages are those of kind's own image that the suites use, and Debian's runc.
var debianPackages = []string{
	"systemd", "systemd-sysv", "dbus", "conntrack", "iptables", "nftables", "iproute2", "ethtool",
	"util-linux", "mount", "kmod",
	"libseccomp2", "pigz", "e2fsprogs", "bash", "ca-certificates", "curl", "jq", "procps", "runc",
	"hostname",
}

// makeRoot makes the file system of a node in dir, but for what node-setup.sh does.
func makeRoot(ctx context.Context, progress io.Writer, node assets.Node, dir string) error {
	if err := assets.Debootstrap(ctx, progress, debianPackages, dir); err != nil {
		return err
	}
	copies := [][]string{ // cp's arguments
		{"-r", node.KindFiles + "/.", dir},
		append(programs(node, "kubeadm", "kubelet", "kubectl"), dir+"/usr/bin/"),
		append(programs(node, "containerd", "containerd-shim-runc-v2", "ctr"),
			dir+"/usr/local/bin/"),
		append(programs(node, "loopback"), dir+"/opt/cni/bin/"),
	}
	if err := os.MkdirAll(filepath.Join(dir, "opt", "cni", "bin"), 0o755); err != nil {
		return err
	}
	for _, args := range copies {
		if _, err := command(ctx, "cp",
			append([]string{"--no-preserve=mode"}, args...)...); err != nil {
			return err
		}
	}
	// The modes are those of kind's Dockerfile: modules are read-only where they come from.
	if _, err := command(ctx, "sh", "-c",
		`cd "$1" && chmod 0755 usr/local/bin/* kind/bin/* opt/cni/bin/* usr/bin/kube*`, "sh",
		dir); err != nil {
		return err
	}
	//nolint:gosec // others read it
	if err := os.WriteFile(filepath.Join(dir, "kind", "version"), []byte(node.Kubernetes),
		0o644); err != nil {
		return err
	}
	pause, err := requiredImage(ctx, node, "pause")
	if err != nil {
		return err
	}
	if err := setSandboxImage(filepath.Join(dir, "etc", "containerd", "config.toml"),
		pause); err != nil {
		return err
	}
	//nolint:gosec // it is run
	return os.WriteFile(filepath.Join(dir, "kind", "node-setup.sh"), nodeSetup, 0o755)
}

// setSandboxImage has containerd keep pods' namespaces by an image that there is.
func setSandboxImage(file, image string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	found := false
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimSpace(line), "sandbox_image =") {
			lines[i], found = fmt.Sprintf("  sandbox_image = %q", image), true
		}
	}
	if !found {
		return fmt.Errorf("%s: no sandbox_image", file)
	}
	//nolint:gosec // others read it
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644)
}

// programs are the paths of some of a node's programs.
func programs(node assets.Node, names ...string) []string {
	var paths []string
	for _, name := range names {
		paths = append(paths, filepath.Join(node.Programs, name))
	}
	return paths
}
