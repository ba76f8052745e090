package plugin

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/cnitest"
)

// A new link takes its settings from conf/default, which distributions, administrators and runtimes
// change. With each of these, on the node and in pods, ADD succeeds, and the pod is reached from
// its node and from another pod in both families.
func TestDefaultsOfNewLinks(t *testing.T) {
	t.Parallel()
	keys := []string{"none"} // the control
	for _, family := range []string{"ipv4", "ipv6"} {
		files, err := filepath.Glob(filepath.Join("/proc/sys/net", family, "conf/default/*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("the defaults of %s: %v", family, err)
		}
		keys = append(keys, files...)
	}
	for _, key := range keys {
		t.Run(strings.ReplaceAll(strings.TrimPrefix(key, "/proc/sys/net/"), "/conf/default/", " "),
			func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				a, b := n.newPod("c1", "pod-a"), n.newPod("c2", "pod-b")
				cnitest.Serve(t, a.NetNS)
				if key != "none" {
					flip(t, key, n.NetNS, a.NetNS, b.NetNS)
				}
				a.MustAdd()
				b.MustAdd()
				for _, addr := range a.Addrs {
					to := netip.AddrPortFrom(addr, cnitest.Port)
					if err := cnitest.Connect(n.NetNS, to); err != nil {
						t.Errorf("node to pod: %v", err)
					}
					if err := cnitest.Connect(b.NetNS, to); err != nil {
						t.Errorf("pod to pod: %v", err)
					}
				}
			})
	}
}

// flip sets a switch the other way, and a number to zero, in these namespaces.
func flip(t *testing.T, key string, spaces ...ns.NetNS) {
	t.Helper()
	for _, space := range spaces {
		err := space.Do(func(ns.NetNS) error {
			now, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			next := "0"
			if strings.TrimSpace(string(now)) == "0" {
				next = "1"
			}
			return os.WriteFile(key, []byte(next), 0o600)
		})
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EACCES) {
			t.Skipf("nobody can set it so: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
