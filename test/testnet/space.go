package testnet

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/test/needroot"
)

// Space is a network namespace of a test's own, for what isn't about packets between hosts: with lo
// up, and all else as the kernel has it. Its methods fail the test.
type Space struct {
	NetNS ns.NetNS

	t testing.TB
}

// NewSpace makes one, which ends with the test. Without root it skips the test.
func NewSpace(t testing.TB) Space {
	t.Helper()
	needroot.Skip(t)
	netns, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	s := Space{netns, t}
	s.Run("ip link set lo up")
	return s
}

// Do runs f on a thread in the namespace.
func (s Space) Do(f func() error) {
	s.t.Helper()
	if err := s.NetNS.Do(func(ns.NetNS) error { return f() }); err != nil {
		s.t.Fatal(err)
	}
}

// Run runs commands, one a line, and returns what the last one printed. Words have no quotes.
func (s Space) Run(commands string) string {
	s.t.Helper()
	var out []byte
	for command := range strings.SplitSeq(strings.TrimSpace(commands), "\n") {
		words := strings.Fields(command)
		s.Do(func() (err error) {
			//nolint:noctx // it ends by itself
			out, err = exec.Command(words[0], words[1:]...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s: %w: %s", command, err, out)
			}
			return err
		})
	}
	return string(out)
}
