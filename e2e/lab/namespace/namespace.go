package namespace

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

// Prefix begins the names of a lab's namespaces.
func Prefix(lab string) string { return "sluice-lab." + lab + "." }

// Name is the name of a lab's namespace for a node, the switch, the outside host, or a pod by its
// UID.
func Name(lab, what string) string { return Prefix(lab) + what }

// Path is the file of a namespace.
func Path(name string) string { return filepath.Join(netnsDir, name) }

// New makes a namespace of this name, with lo up and the sysctls set. It lives until Delete.
func New(name string, sysctls ...Sysctl) error {
	if err := makeNamespace(name); err != nil {
		return fmt.Errorf("making namespace %s: %w", name, err)
	}
	err := In(name, func() error {
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
		return errors.Join(fmt.Errorf("setting up namespace %s: %w", name, err), Delete(name))
	}
	return nil
}

// In runs f in the namespace of this name, on an OS thread of its own.
func In(name string, f func() error) error {
	return ns.WithNetNSPath(Path(name), func(ns.NetNS) error { return f() })
}

// makeNamespace leaves the thread in the namespace it was in. If that fails, the thread ends with
// its goroutine.
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

// Delete takes a namespace's name away; it ends when nothing uses it any more. One that isn't there
// is no error.
func Delete(name string) error {
	if err := netns.DeleteNamed(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleting namespace %s: %w", name, err)
	}
	return nil
}

// DeleteAll deletes all namespaces of a lab.
func DeleteAll(lab string) error {
	entries, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), Prefix(lab)) {
			errs = append(errs, Delete(entry.Name()))
		}
	}
	return errors.Join(errs...)
}

// Sysctl is a value for a key in the dotted form, such as net.ipv4.ip_forward.
type Sysctl struct{ key, value string }

// write sets the value in the current namespace.
func (s Sysctl) write() error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(s.key, ".", "/"))
	if err := os.WriteFile(path, []byte(s.value), 0o600); err != nil {
		return fmt.Errorf("setting %s to %s: %w", s.key, s.value, err)
	}
	return nil
}

// quickSysctls turns off what would make addresses usable late (duplicate address detection, router
// solicitation) or lose the second refusal in a row (ICMP rate limits), and forwarding, which a new
// namespace takes over from a host that runs Docker.
func quickSysctls() []Sysctl {
	return []Sysctl{
		{"net.ipv4.ip_forward", "0"},
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_ra", "0"},
		{"net.ipv4.icmp_ratelimit", "0"},
		{"net.ipv6.icmp.ratelimit", "0"},
	}
}

// Forwards makes a namespace a router, or not one.
func Forwards(on bool) []Sysctl {
	value := "0"
	if on {
		value = "1"
	}
	return append(ReversePath(0),
		Sysctl{"net.ipv4.ip_forward", value},
		Sysctl{"net.ipv6.conf.all.forwarding", value},
		Sysctl{"net.ipv6.conf.default.forwarding", value},
	)
}

// ReversePath sets the reverse path filter (0, 1 or 2) for links of a namespace that aren't made
// yet: the higher of a link's value and that of all counts.
func ReversePath(filter int) []Sysctl {
	value := strconv.Itoa(filter)
	return []Sysctl{
		{"net.ipv4.conf.all.rp_filter", value}, {"net.ipv4.conf.default.rp_filter", value},
	}
}

// Dialer connects from the namespace of this name.
func Dialer(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = In(name, func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}
