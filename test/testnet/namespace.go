package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace and a route netlink socket inside it. It ends when it is closed
// and no socket is left in it.
type namespace struct {
	netns ns.NetNS
	nl    netlinksafe.Handle
}

// newNamespace makes a namespace with lo up and the sysctls that let tests be quick and exact.
func newNamespace(extra ...sysctl) (*namespace, error) {
	netns, err := ns.TempNetNS()
	if err != nil {
		return nil, fmt.Errorf("creating a network namespace: %w", err)
	}
	s := &namespace{netns: netns}
	err = s.do(func() error {
		for _, c := range append(quickSysctls(), extra...) {
			if err := c.write(); err != nil {
				return err
			}
		}
		s.nl, err = netlinksafe.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("opening a netlink socket: %w", err)
		}
		lo, err := s.nl.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("finding lo: %w", err)
		}
		return s.nl.LinkSetUp(lo)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// do runs f on an OS thread inside the namespace. Sockets that f opens stay in the namespace after
// it returns.
func (s *namespace) do(f func() error) error {
	return s.netns.Do(func(ns.NetNS) error { return f() })
}

func (s *namespace) close() {
	if s.nl.Handle != nil {
		s.nl.Close()
	}
	// The descriptor is ours and open: closing it can't fail in a way a test could mend.
	_ = s.netns.Close()
}

// path names the namespace to other processes for as long as it is open.
func (s *namespace) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.netns.Fd())
}

// sysctl is a value for a key in the dotted form, such as net.ipv4.ip_forward.
type sysctl struct{ key, value string }

func (c sysctl) write() error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(c.key, ".", "/"))
	if err := os.WriteFile(path, []byte(c.value), 0o600); err != nil {
		return fmt.Errorf("setting %s to %s: %w", c.key, c.value, err)
	}
	return nil
}

// quickSysctls turns off what would make results late (duplicate address detection, router
// solicitation), drop packets for reasons of its own (reverse path filter), or lose the second
// refusal in a row (ICMP rate limits).
func quickSysctls() []sysctl {
	return []sysctl{
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_ra", "0"},
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv4.icmp_ratelimit", "0"},
		{"net.ipv6.icmp.ratelimit", "0"},
	}
}

// forwardingSysctls makes the namespace a router.
func forwardingSysctls() []sysctl {
	return []sysctl{
		{"net.ipv4.ip_forward", "1"},
		{"net.ipv6.conf.all.forwarding", "1"},
		{"net.ipv6.conf.default.forwarding", "1"},
	}
}
