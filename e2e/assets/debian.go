package assets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// DebianSuite is the last whose systemd still takes cgroups of version 1 as they come.
const DebianSuite = "bookworm"

// keyring is what Debian's packages are checked by, on hosts of any kind.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// systemPackages are the firewalls and the managers of networks that nodes may have, and what they
// need where no systemd starts them.
var systemPackages = []string{
	"dbus", "systemd-sysv", "libpam-systemd", "iproute2", "iptables", "nftables",
	"docker.io", "ufw", "firewalld", "network-manager",
}

// Debian returns the folder of a Debian that has other programs of a node: Docker, ufw, firewalld,
// NetworkManager and systemd-networkd. Nobody may write there. The first time, it is made, which
// takes two minutes: progress gets lines about that.
func Debian(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := debianFolder()
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, progress, dir, "a Debian")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	passing := dir + ".new"
	if err := os.RemoveAll(passing); err != nil {
		return "", err
	}
	if err := Debootstrap(ctx, progress, systemPackages, passing); err != nil {
		return "", err
	}
	return dir, os.Rename(passing, dir)
}

// FoundDebian is Debian's folder where it was made before.
func FoundDebian() (string, error) {
	dir, err := debianFolder()
	if err != nil {
		return "", err
	}
	_, err = os.Stat(dir)
	return dir, err
}

func debianFolder() (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(DebianSuite + strings.Join(systemPackages, ",")))
	return filepath.Join(cache, "debian-"+hex.EncodeToString(sum[:])[:12]), nil
}

// Debootstrap makes a Debian in dir, with these packages. As root, debootstrap is installed if it
// is missing. The packages come from $DEBIAN_MIRROR, or where debootstrap takes them from.
func Debootstrap(ctx context.Context, progress io.Writer, packages []string, dir string) error {
	ensure, err := File("hack", "ensure-packages")
	if err != nil {
		return err
	}
	ensureIt := exec.CommandContext(ctx, ensure, "debootstrap=debootstrap",
		keyring+"=debian-archive-keyring")
	if out, err := ensureIt.CombinedOutput(); err != nil {
		return fmt.Errorf("installing debootstrap: %w\n%s", err, out)
	}
	// What it mounts ends with it, whatever ends it.
	args := []string{"--mount", "--propagation=private", "debootstrap", "--variant=minbase",
		"--force-check-gpg", "--keyring=" + keyring,
		"--include=" + strings.Join(packages, ","), DebianSuite, dir}
	if mirror := os.Getenv("DEBIAN_MIRROR"); mirror != "" {
		args = append(args, mirror)
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	speak := func(sofar time.Duration) {
		linef(progress, "installing Debian's packages into a folder: %s so far", sofar)
	}
	if err := during(speak, cmd.Run); err != nil {
		return fmt.Errorf("debootstrap: %w\n%s", err, output.String())
	}
	return nil
}
