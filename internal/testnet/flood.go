package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// floodPorts is how many source ports a flood goes round: enough for fresh flows, too few to fill a conntrack table.
const floodPorts = 16384

// Flood sends UDP packets to one destination as fast as one OS thread can, each from the next of 16,384 source ports.
//
// A packet that a rule drops leaves no conntrack entry, so its port is fresh when its turn comes again. A packet that passes does
// leave one, of 1 s (see Host.Flood); later packets of its port meet it, but are in state new all the same, because
// nobody answers: send floods to a Sink. Entries never outnumber the ports, so a full table doesn't pass for a drop.
type Flood struct {
	host *Host
	conn net.Conn
	sent atomic.Uint64
	done sync.WaitGroup
	end  sync.Once

	stop      atomic.Bool
	overflows uint64 // of the node's conntrack table, before the flood
	err       error  // why sending ended early; read after done
}

// FloodOption alters a flood.
type FloodOption func(*floodOptions)

type floodOptions struct{ cpu int }

// OnCPU binds the flood's thread to one CPU, counted from 0.
func OnCPU(cpu int) FloodOption { return func(o *floodOptions) { o.cpu = cpu } }

// Flood starts a flood, which ends with Stop or the host. In the node's namespace it sets the conntrack timeout of UDP flows
// without an answer to 1 s, for good.
func (h *Host) Flood(dst netip.AddrPort, opts ...FloodOption) *Flood {
	h.t.Helper()
	o := floodOptions{cpu: -1}
	for _, set := range opts {
		set(&o)
	}
	f, err := h.newFlood(dst)
	if err != nil {
		h.t.Fatalf("%s: starting a flood: %v", h.describe(UDP, dst), err)
	}
	f.done.Go(func() { f.err = f.run(dst, o.cpu) })
	h.onStop(func() { f.Stop() })
	return f
}

func (h *Host) newFlood(dst netip.AddrPort) (*Flood, error) {
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
	f.conn, err = h.dial("ip:17", dst, netip.AddrPort{}, time.Time{})
	if err != nil {
		return nil, err
	}
	if dst.Addr().Is6() {
		// The kernel fills in the checksum, at this offset. IPv4 can do without one.
		ip, ok := f.conn.(*net.IPConn)
		if !ok {
			return nil, fmt.Errorf("a raw socket is a %T", f.conn)
		}
		err = setOption(ip, unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, 6)
	}
	return f, err
}

// Sent returns how many packets have been handed to the kernel so far, also those that the sender's own output hook dropped.
func (f *Flood) Sent() uint64 { return f.sent.Load() }

// Stop ends the flood and returns how many packets were sent. It fails the test if the node's conntrack table was full meanwhile,
// since packets dropped for that prove nothing about a rule. Stopping twice is no error.
func (f *Flood) Stop() uint64 {
	f.host.t.Helper()
	f.end.Do(func() {
		f.stop.Store(true)
		f.done.Wait()
		_ = f.conn.Close()
		if err := errors.Join(f.err, f.checkOverflows()); err != nil {
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

func (f *Flood) run(dst netip.AddrPort, cpu int) error {
	if cpu >= 0 {
		// Never unlocked: the thread, bound to its CPU, ends with the goroutine.
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("binding to CPU %d: %w", cpu, err)
		}
	}
	packet := make([]byte, 16) // header and 8 bytes of content
	binary.BigEndian.PutUint16(packet[2:], dst.Port())
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)))
	first := firstPrivatePort
	for i := 0; !f.stop.Load(); i++ {
		binary.BigEndian.PutUint16(packet, uint16(first+i%floodPorts))
		_, err := f.conn.Write(packet)
		switch {
		case err == nil, errors.Is(err, unix.EPERM):
			f.sent.Add(1)
		case !isAny(err, unix.ENOBUFS, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES):
			return err // none of those by which rules and full queues speak
		}
	}
	return nil
}

// conntrackOverflows counts, for the current namespace, how often a full conntrack table cost a packet or a flow.
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
