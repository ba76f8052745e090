package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/atomicfile"
)

// SubnetEnv is what flannel tells other programs of a node about its pod network, in
// /run/flannel/subnet.env.
type SubnetEnv struct {
	Network, IPv6Network netip.Prefix // of all pods; the zero Prefix without pods of that family
	Subnet, IPv6Subnet   netip.Prefix // of the node's pods
	MTU                  int          // of pods
	// whether packets that leave the pod network get the node's address
	Masquerade bool
}

// String is the file's content. Subnets are shown by their first address after the network's own,
// as flannel does it.
func (e SubnetEnv) String() string {
	var b strings.Builder
	for _, f := range []struct {
		prefix          string
		network, subnet netip.Prefix
	}{{"FLANNEL_", e.Network, e.Subnet}, {"FLANNEL_IPV6_", e.IPv6Network, e.IPv6Subnet}} {
		if f.network.IsValid() && f.subnet.IsValid() {
			first := netip.PrefixFrom(f.subnet.Masked().Addr().Next(), f.subnet.Bits())
			fmt.Fprintf(&b, "%sNETWORK=%s\n%sSUBNET=%s\n", f.prefix, f.network, f.prefix, first)
		}
	}
	fmt.Fprintf(&b, "FLANNEL_MTU=%d\nFLANNEL_IPMASQ=%t\n", e.MTU, e.Masquerade)
	return b.String()
}

// WriteFile writes the content to path, whole or not at all, and makes its folder if need be. A
// file that is right already is left alone. Callers don't write the same path at the same time.
func (e SubnetEnv) WriteFile(path string) error {
	content := e.String()
	now, err := os.ReadFile(path) //nolint:gosec // the caller's path
	if err == nil && string(now) == content {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // others read it
		return fmt.Errorf("making the folder of %s: %w", path, err)
	}
	file := atomicfile.File{Path: path, Passing: filepath.Base(unfinishedPattern(path)),
		Mode: 0o644}
	if err := file.Write([]byte(content)); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	unfinished, _ := filepath.Glob(
		unfinishedPattern(path)) // of who died writing it; the pattern is good
	for _, file := range unfinished {
		_ = os.Remove(file) // it does no harm
	}
	return nil
}

// RemoveSubnetFile removes what WriteFile wrote, or was about to write, and its folder if nothing
// else is in it, and it is no mount point, as it is in a container. A file that isn't there is no
// error. Flannel may have written it: who calls this knows better.
func RemoveSubnetFile(path string) error {
	unfinished, err := filepath.Glob(unfinishedPattern(path))
	errs := []error{err}
	for _, file := range append(unfinished, path) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	err = unix.Rmdir(filepath.Dir(path))
	if !slices.Contains([]error{nil, unix.ENOENT, unix.ENOTEMPTY, unix.EBUSY, unix.EROFS}, err) {
		errs = append(errs, fmt.Errorf("removing its folder: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}

// unfinishedPattern is that of the names that the file has before it is whole.
func unfinishedPattern(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".*")
}
