package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Kernel is one of Debian's, unpacked.
type Kernel struct {
	Suite   string // of Debian
	Release string // what uname -r says: 6.1.0-50-amd64
	Package string // the package's version: 6.1.176-1
	Image   string // the compressed kernel
	Modules string // the folder that becomes /lib/modules
	Initrd  string // what finds the root file system
	Bin     string // the folder of the suite's programs, which comes first in PATH
	Fetched time.Time
}

// Fetch returns a kernel of a suite of Debian: the newest when it was fetched. The first time, it
// is downloaded with apt, which checks Debian's signature, and unpacked below cache: nothing is
// installed. Others may call it at the same time; waiting is called if one of them does.
func Fetch(ctx context.Context, cache, suite string, waiting func()) (*Kernel, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(cache, suite+".lock"), waiting)
	if err != nil {
		return nil, err
	}
	defer unlock()
	folder := filepath.Join(cache, suite+"-"+recipe())
	if _, err := os.Stat(folder); errors.Is(err, os.ErrNotExist) {
		passing := folder + ".new"
		if err := os.RemoveAll(passing); err != nil {
			return nil, err
		}
		if err := unpack(ctx, passing, suite); err != nil {
			return nil, fmt.Errorf("fetching the kernel of Debian's %s: %w", suite, err)
		}
		if err := os.Rename(passing, folder); err != nil {
			return nil, err
		}
	}
	return open(folder, suite)
}

// recipe changes when what unpack leaves does.
func recipe() string {
	sum := sha256.Sum256(append([]byte(programScript), early...))
	return hex.EncodeToString(sum[:4])
}

// lock waits until nobody else has the file's lock, and returns what gives it back. It calls
// waiting if somebody has.
func lock(path string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		waiting()
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// open returns what unpack has left in a folder.
func open(folder, suite string) (*Kernel, error) {
	releases, err := filepath.Glob(filepath.Join(folder, "modules/*"))
	if err != nil || len(releases) != 1 {
		return nil,
			fmt.Errorf("%s has %d folders of modules instead of one; remove %s to fetch it anew",
				filepath.Join(folder, "modules"), len(releases), folder)
	}
	path := filepath.Join(folder, "version")
	version, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &Kernel{Suite: suite, Release: filepath.Base(releases[0]), Package: string(version),
		Image: filepath.Join(folder, "vmlinuz"), Modules: filepath.Join(folder, "modules"),
		Initrd: filepath.Join(folder, "initrd.gz"), Bin: filepath.Join(folder, "bin"),
		Fetched: info.ModTime()}, nil
}

// unpack downloads the packages of a suite's kernel and leaves of them, in the folder, vmlinuz,
// initrd.gz, modules/RELEASE and version; and the suite's programs.
func unpack(ctx context.Context, folder, suite string) error {
	apt, err := newApt(ctx, filepath.Join(folder, "apt"), suite)
	if err != nil {
		return err
	}
	names, err := apt.kernel(ctx)
	if err != nil {
		return err
	}
	version, err := apt.version(ctx, names[0])
	if err != nil {
		return err
	}
	tree := filepath.Join(folder, "tree")
	if err := apt.unpack(ctx, tree, names); err != nil {
		return err
	}
	// What is backported has its userland from the release below.
	release, err := newApt(ctx, filepath.Join(folder, "apt-release"),
		strings.TrimSuffix(suite, "-backports"))
	if err != nil {
		return err
	}
	if err := release.unpack(ctx, tree, []string{"busybox-static"}); err != nil {
		return err
	}
	if err := arrange(ctx, folder, tree); err != nil {
		return err
	}
	if err := release.unpackPrograms(ctx, folder); err != nil {
		return err
	}
	for _, done := range []string{apt.folder, release.folder, tree} {
		if err := os.RemoveAll(done); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "version"), []byte(version), 0o644)
}

// arrange takes image and modules out of an unpacked package, and makes the initial RAM disk.
func arrange(ctx context.Context, folder, tree string) error {
	images, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(images) == 0 {
		images, err = filepath.Glob(filepath.Join(tree, "usr/lib/modules/*/vmlinuz"))
	}
	if err != nil || len(images) != 1 {
		return fmt.Errorf("the package has %d files vmlinuz instead of one", len(images))
	}
	if err := os.Rename(images[0], filepath.Join(folder, "vmlinuz")); err != nil {
		return err
	}
	modules := filepath.Join(folder, "modules")
	for _, from := range []string{"lib/modules", "usr/lib/modules"} {
		if err := os.Rename(filepath.Join(tree, from), modules); err == nil {
			break
		}
	}
	releases, err := os.ReadDir(modules)
	if err != nil {
		return err
	}
	release := releases[0].Name()
	// depmod and modprobe want the folder's place in a system.
	system := filepath.Join(folder, "system")
	if err := os.MkdirAll(filepath.Join(system, "lib"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink("../../modules", filepath.Join(system, "lib/modules")); err != nil {
		return err
	}
	if _, err := command(ctx, "", "depmod", "-b", system, release); err != nil {
		return err
	}
	busybox := filepath.Join(tree, "bin/busybox")
	if _, err := os.Stat(busybox); err != nil {
		busybox = filepath.Join(tree, "usr/bin/busybox")
	}
	return writeInitrd(ctx, filepath.Join(folder, "initrd.gz"), busybox, system, release)
}
