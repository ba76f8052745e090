package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// early is what the kernel starts first. It needs the modules below to find this machine's root.
//
//go:embed early.sh
var early []byte

// rootModules are what the machine needs for its root file system.
var rootModules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// writeInitrd makes the initial RAM disk of a kernel whose modules are in SYSTEM/lib/modules: a
// busybox, the modules that the root file system needs, in the order to load them, and early.sh.
func writeInitrd(ctx context.Context, path, busybox, system, release string) error {
	root, err := os.MkdirTemp(filepath.Dir(path), "initrd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for _, folder := range []string{"bin", "modules", "proc", "sys", "dev", "root", "ro", "rw"} {
		if err := os.Mkdir(filepath.Join(root, folder), 0o755); err != nil {
			return err
		}
	}
	order, err := copyModules(ctx, filepath.Join(root, "modules"), system, release)
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(root, "modules/order"), []byte(order), 0o644)
	if err != nil {
		return err
	}
	//nolint:gosec // runs
	if err := os.WriteFile(filepath.Join(root, "init"), early, 0o755); err != nil {
		return err
	}
	if _, err := command(ctx, "", "cp", busybox, filepath.Join(root, "bin")); err != nil {
		return err
	}
	_, err = command(ctx, root, "sh", "-c",
		`find . | cpio -o -H newc --quiet | gzip -1 >"$0"`, path)
	return err
}

// copyModules copies the modules into a folder, unpacked, and names them in the order to load.
func copyModules(ctx context.Context, folder, system, release string) (order string, err error) {
	var names []string
	copied := map[string]bool{}
	for _, module := range rootModules {
		text, err := command(ctx, "", "modprobe", "-d", system, "-S", release,
			"--show-depends", module)
		if err != nil {
			continue // built in
		}
		for line := range strings.Lines(text) {
			file, ok := strings.CutPrefix(line, "insmod ")
			if file = strings.TrimSpace(file); !ok || copied[file] {
				continue
			}
			copied[file] = true
			name := strings.TrimSuffix(filepath.Base(file), ".xz")
			script := `cat "$0" >"$1"`
			if strings.HasSuffix(file, ".xz") {
				script = `xz -dc "$0" >"$1"`
			}
			if _, err := command(ctx, "", "sh", "-c", script, file,
				filepath.Join(folder, name)); err != nil {
				return "", fmt.Errorf("copying the module %s: %w", module, err)
			}
			names = append(names, name)
		}
	}
	return strings.Join(names, "\n") + "\n", nil
}
