package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// netnsDir is where ip netns keeps namespaces by name.
const netnsDir = "/run/netns"

// nsPrefix begins the names of a lab's namespaces.
func nsPrefix(lab string) string { return "sluice-lab." + lab + "." }

// nsName is the name of a lab's namespace for a node, the switch, the outside host, or a pod by its UID.
func nsName(lab, what string) string { return nsPrefix(lab) + what }

// nsPath is the file of a namespace.
func nsPath(name string) string { return filepath.Join(netnsDir, name) }

// newNamespace makes a namespace of this name, with lo up and the sysctls set. It lives until deleteNamespace.
func newNamespace(name string, sysctls ...sysctl) error {
	if err := makeNamespace(name); err != nil {
		return fmt.Errorf("making namespace %s: %w", name, err)
	}
	err := inNamespace(name, func() error {
		for _, s := range append(quickSysctls(), sysctls...) {
			if err := s.write(); err != nil {
				return err
			}
		}
		lo, err := netlinksafe.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("finding lo: %w", err)
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return errors.Join(fmt.Errorf("setting up namespace %s: %w", name, err), deleteNamespace(name))
	}
	return nil
}

// inNamespace runs f in the namespace of this name, on an OS thread of its own.
func inNamespace(name string, f func() error) error {
	return ns.WithNetNSPath(nsPath(name), func(ns.NetNS) error { return f() })
}

// makeNamespace leaves the thread in the namespace it was in. If that fails, the thread ends with its goroutine.
func makeNamespace(name string) error {
	done := make(chan error)
	go func() {
		done <- func() error {
			runtime.LockOSThread()
			home, err := netns.Get()
			if err != nil {
				return err
			}
			defer func() { _ = home.Close() }()
			made, err := netns.NewNamed(name)
			if err == nil {
				err = made.Close()
			}
			if back := netns.Set(home); back != nil {
				return errors.Join(err, back)
			}
			runtime.UnlockOSThread()
			return err
		}()
	}()
	return <-done
}

// deleteNamespace takes a namespace's name away; it ends when nothing uses it any more. One that isn't there is no error.
func deleteNamespace(name string) error {
	if err := netns.DeleteNamed(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleting namespace %s: %w", name, err)
	}
	return nil
}

// deleteNamespaces deletes all namespaces of a lab.
func deleteNamespaces(lab string) error {
	entries, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), nsPrefix(lab)) {
			errs = append(errs, deleteNamespace(entry.Name()))
		}
	}
	return errors.Join(errs...)
}

// sysctl is a value for a key in the dotted form, such as net.ipv4.ip_forward.
type sysctl struct{ key, value string }

// write sets the value in the current namespace.
func (s sysctl) write() error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(s.key, ".", "/"))
	if err := os.WriteFile(path, []byte(s.value), 0o600); err != nil {
		return fmt.Errorf("setting %s to %s: %w", s.key, s.value, err)
	}
	return nil
}

// quickSysctls turns off what would make addresses usable late (duplicate address detection, router solicitation) or lose the
// second refusal in a row (ICMP rate limits), and forwarding, which a new namespace takes over from a host that runs Docker.
func quickSysctls() []sysctl {
	return []sysctl{
		{"net.ipv4.ip_forward", "0"},
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_ra", "0"},
		{"net.ipv4.icmp_ratelimit", "0"},
		{"net.ipv6.icmp.ratelimit", "0"},
	}
}

// forwards makes a namespace a router, or not one.
func forwards(on bool) []sysctl {
	value := "0"
	if on {
		value = "1"
	}
	return append(reversePath(0),
		sysctl{"net.ipv4.ip_forward", value},
		sysctl{"net.ipv6.conf.all.forwarding", value},
		sysctl{"net.ipv6.conf.default.forwarding", value},
	)
}

// reversePath sets the reverse path filter (0, 1 or 2) for links of a namespace that aren't made yet:
// the higher of a link's value and that of all counts.
func reversePath(filter int) []sysctl {
	value := strconv.Itoa(filter)
	return []sysctl{
		{"net.ipv4.conf.all.rp_filter", value}, {"net.ipv4.conf.default.rp_filter", value},
	}
}

// dialer connects from the namespace of this name.
func dialer(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = inNamespace(name, func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}
