package kernels

import (
	"regexp"
	"strings"
)

// A Kernel is what a kernel says of itself.
type Kernel struct {
	Release string // uname -r, as it is

	// Version is the release of Linux that it is made of; zero if that can't be read. A kernel of
	// Debian has 5.10.0 in its Release, whatever it is made of, and the number elsewhere.
	Version Version

	// Comparable says that Version has Linux' own last number, so that it says which mends are in.
	// Ubuntu's 5.15.0-119 and Red Hat's 5.14.0-427 count for themselves.
	Comparable bool
}

var debianVersion = regexp.MustCompile(`\bDebian (\d+\.\d+\.\d+)-`)

// countsOn is what follows the version where a distribution adds mends of its own to it.
var countsOn = regexp.MustCompile(`^-\d.*-(default|pve)$`)

// Identify reads uname -r and uname -v. What it can't read it leaves out.
func Identify(release, version string) Kernel {
	k := Kernel{Release: strings.TrimSpace(release)}
	if m := debianVersion.FindStringSubmatch(version); m != nil {
		k.Version, _, _ = ParseVersion(m[1])
		k.Comparable = k.Known()
		return k
	}
	v, rest, _ := ParseVersion(k.Release)
	k.Version = v
	// Of distributions, those that count for themselves say 0, and those that name Linux' own
	// release also write the last number. A release candidate of 6.1 is older than 6.1. SUSE and
	// Proxmox write a last number and count on from there.
	k.Comparable = k.Known() && (rest == "" || v.Patch > 0) && !countsOn.MatchString(rest)
	return k
}

// Known reports whether the version could be read.
func (k Kernel) Known() bool { return k.Version != Version{} }

// String names the kernel for people.
func (k Kernel) String() string {
	if !k.Known() || strings.HasPrefix(k.Release, k.Version.String()) {
		return k.Release
	}
	return k.Release + " (Linux " + k.Version.String() + ")"
}
