package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-net/sluice/test/probe"
)

// floodPorts is how many source ports a flood goes round.
const floodPorts = probe.FloodPorts

// Flood sends UDP packets to one destination as fast as one OS thread can, from 16,384 source
// ports, see probe.Flood. The node keeps the conntrack entries of packets that pass for 1 s; they
// never outnumber the ports, so a full table doesn't pass for a drop.
type Flood struct {
	host      *Host
	flood     *probe.Flood
	end       sync.Once
	overflows uint64 // of the node's conntrack table, before the flood
}

// Flood starts a flood, which ends with Stop or the host. In the node's namespace it sets the
// conntrack timeout of UDP flows without an answer to 1 s, for good.
func (h *Host) Flood(dst netip.AddrPort, opts ...FloodOption) *Flood {
	h.t.Helper()
	f, err := h.newFlood(dst, opts)
	if err != nil {
		h.t.Fatalf("%s: starting a flood: %v", h.describe(UDP, dst), err)
	}
	h.onStop(func() { f.Stop() })
	return f
}

func (h *Host) newFlood(dst netip.AddrPort, opts []FloodOption) (*Flood, error) {
	f := &Flood{host: h}
	err := h.node.Do(func() (err error) {
		if err := (sysctl{"net.netfilter.nf_conntrack_udp_timeout", "1"}).write(); err != nil {
			return err
		}
		f.overflows, err = conntrackOverflows()
		return err
	})
	if err != nil {
		return nil, err
	}
	err = h.Do(func() (err error) {
		f.flood, err = probe.StartFlood(dst, opts...)
		return err
	})
	return f, err
}

// Sent returns how many packets have been handed to the kernel so far, also those that the sender's
// own output hook dropped.
func (f *Flood) Sent() uint64 { return f.flood.Sent() }

// Stop ends the flood and returns how many packets were sent. It fails the test if the node's
// conntrack table was full meanwhile, since packets dropped for that prove nothing about a rule.
// Stopping twice is no error.
func (f *Flood) Stop() uint64 {
	f.host.t.Helper()
	f.end.Do(func() {
		_, err := f.flood.Stop()
		if err := errors.Join(err, f.checkOverflows()); err != nil {
			f.host.t.Errorf("flooding from %s: %v", f.host.name, err)
		}
	})
	return f.Sent()
}

func (f *Flood) checkOverflows() error {
	return f.host.node.Do(func() error {
		overflows, err := conntrackOverflows()
		if err == nil && overflows != f.overflows {
			err = fmt.Errorf("the conntrack table was full %d times", overflows-f.overflows)
		}
		return err
	})
}

// conntrackOverflows counts, for the current namespace, how often a full conntrack table cost a
// packet or a flow.
func conntrackOverflows() (uint64, error) {
	text, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
	if err != nil {
		return 0, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	names := strings.Fields(lines[0])
	var total uint64
	for _, line := range lines[1:] { // one a CPU
		for i, value := range strings.Fields(line) {
			if i >= len(names) || names[i] != "drop" && names[i] != "early_drop" {
				continue
			}
			n, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return 0, errors.Join(errors.New("reading conntrack statistics"), err)
			}
			total += n
		}
	}
	return total, nil
}

// NeedTwoProcessors skips a test that changes a table under a flood: on one processor no packet is
// under way meanwhile.
func NeedTwoProcessors(t testing.TB) {
	t.Helper()
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors: on one, no packet is under way while the table changes")
	}
}
