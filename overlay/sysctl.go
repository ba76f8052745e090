package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sysctl is a setting of the kernel that the pod network needs.
type sysctl struct {
	key      string // a path below /proc/sys/net
	value    string
	only     string // if not empty: the value that it replaces; others stay
	optional bool   // the setting may not exist, because its link doesn't yet
}

// sysctls is what a node needs to forward packets, in the order in which to set it. Uplinks are the
// links that live from router advertisements: as soon as the node forwards IPv6, the kernel ignores
// those, and deletes the default route that it has from them, unless accept_ra is 2.
func sysctls(c Config, uplinks []string) []sysctl {
	var all []sysctl
	tunnel := func(family, key, value string) {
		if c.Backend == VXLAN {
			all = append(all, sysctl{key: filepath.Join(family, "conf", c.Device(), key),
				value: value, optional: true})
		}
	}
	if c.Network.IsValid() {
		all = append(all, sysctl{key: "ipv4/ip_forward", value: "1"})
		tunnel("ipv4", "forwarding", "1")
	}
	if c.IPv6Network.IsValid() {
		for _, uplink := range uplinks {
			all = append(all, sysctl{key: filepath.Join("ipv6/conf", uplink, "accept_ra"),
				value: "2", only: "1", optional: true})
		}
		all = append(all, sysctl{key: "ipv6/conf/all/forwarding", value: "1"})
		tunnel("ipv6", "disable_ipv6", "0")
		tunnel("ipv6", "forwarding", "1")
	}
	return all
}

// setSysctls writes those that differ, below dir (/proc/sys/net, or where that is mounted
// writable), in the network namespace of the calling thread. It returns what it wrote, and stops at
// the first error.
func setSysctls(dir string, wanted []sysctl) (written []string, err error) {
	for _, s := range wanted {
		now, err := readSysctl(dir, s.key)
		if s.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return written, err
		}
		if now == s.value || s.only != "" && now != s.only {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, s.key), []byte(s.value), 0); err != nil {
			return written,
				fmt.Errorf("setting sysctl net/%s from %s to %s: %w", s.key, now, s.value, err)
		}
		written = append(written, fmt.Sprintf("net/%s=%s", s.key, s.value))
	}
	return written, nil
}

func readSysctl(dir, key string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir,
		key)) //nolint:gosec // a sysctl of the caller's choice
	if err != nil {
		return "", fmt.Errorf("reading sysctl net/%s: %w", key, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// reversePathFilters is rp_filter for all links and for these: 0 is off, 1 strict, 2 loose; the
// higher of a link's and all's counts. It is for people to see: the administrator's choice stays.
func reversePathFilters(dir string, links ...string) map[string]string {
	filters := map[string]string{}
	for _, link := range append(links, "all") {
		value, err := readSysctl(dir, filepath.Join("ipv4/conf", link, "rp_filter"))
		if err == nil {
			filters[link] = value
		}
	}
	return filters
}

// notForwarding is those of the links that don't forward IPv4, by a switch that each has of its
// own. (IPv6 has one for the node.)
func notForwarding(dir string, links []string) []string {
	var off []string
	for _, link := range links {
		value, err := readSysctl(dir, filepath.Join("ipv4/conf", link, "forwarding"))
		if err == nil && value == "0" {
			off = append(off, link)
		}
	}
	return off
}

// uplinks is the underlay's links and those of IPv4's default routes, by name.
func (s sight) uplinks(underlay []string) []string {
	links := append(s.defaultLinks(netlink.FAMILY_V4), underlay...)
	links = slices.DeleteFunc(links, func(name string) bool {
		_, found := s.kernel.Links()[name]
		return !found || isDevice(name)
	})
	slices.Sort(links)
	return slices.Compact(links)
}

// advertisedLinks is the links that have something from a router advertisement: a route, or an
// address that can expire. The underlay's link counts as well, as their router may not have spoken
// yet.
func (s sight) advertisedLinks(underlay []string) []string {
	links := slices.Clone(underlay)
	for _, r := range s.routes {
		if r.Protocol == unix.RTPROT_RA {
			links = append(links, s.linksOf(r)...)
		}
	}
	for _, a := range s.addresses {
		if a.IP.To4() == nil && a.Flags&unix.IFA_F_PERMANENT == 0 {
			links = append(links, s.kernel.Name(a.LinkIndex))
		}
	}
	slices.Sort(links)
	return slices.Compact(links)
}
