package podlink

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-net/sluice/cni"
)

// The families, as /proc/sys/net calls them.
const (
	family4 = "ipv4"
	family6 = "ipv6"
)

// procSys is where settings of the network are.
const procSys = "/proc/sys/net"

// linkSysctl is a setting of a pod's link that matters; all others are left alone.
type linkSysctl struct {
	family, link, name string
	value              int32
}

func (s linkSysctl) path() string {
	return fmt.Sprintf("%s/conf/%s/%s", s.family, s.link, s.name)
}
func (s linkSysctl) key() string    { return s.path() }
func (s linkSysctl) device() string { return s.link }
func (s linkSysctl) remove() string { return "" } // it can't be
func (s linkSysctl) add() string    { return fmt.Sprintf("sysctl -w net/%s=%d", s.path(), s.value) }

// write sets it in the network namespace of the calling thread. A kernel without IPv6 has none of
// that.
func (s linkSysctl) write() error {
	if _, err := os.Stat(filepath.Join(procSys, s.family, "conf")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(procSys, s.path()), fmt.Append(nil, s.value),
		0o600); err != nil {
		return fmt.Errorf("setting %s of %s to %d: %w", s.name, s.link, s.value, err)
	}
	return nil
}

// hostEndSysctls is the settings of the host end of a pod with these addresses, whose host ports
// may have IPv4: what the plugin sets at first, and the agent keeps. A new link takes its settings
// from the node's conf/default, which can be anything.
func hostEndSysctls(link string, addrs []netip.Addr, hasHostPort4 bool) []linkSysctl {
	all := []linkSysctl{
		{family6, link, "accept_ra", 0},     // a pod is no router of the node
		{family6, link, "accept_dad", 0},    // nobody else is on the link
		{family6, link, "addr_gen_mode", 1}, // no link-local address but ours
	}
	if cni.Has6(addrs) {
		all = append(all, linkSysctl{family6, link, "disable_ipv6", 0})
	}
	if slices.ContainsFunc(addrs, netip.Addr.Is4) {
		// IPv6 has one switch for the whole node
		all = append(all, linkSysctl{family4, link, "forwarding", 1})
	}
	if hasHostPort4 {
		// the node's processes reach host ports at 127.0.0.1
		all = append(all, linkSysctl{family4, link, "route_localnet", 1})
	}
	return all
}
