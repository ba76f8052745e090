package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FloodPorts is how many source ports a flood goes round: enough for fresh flows, too few to fill a
// conntrack table.
const FloodPorts = 16384

// Flood sends UDP packets to one destination as fast as one OS thread can, each from the next of
// FloodPorts source ports.
//
// A packet that a rule drops leaves no conntrack entry, so its port is fresh when its turn comes
// again. A packet that passes does leave one; later packets of its port meet it, but are in state
// new all the same, because no answer comes: send floods to a Sink.
type Flood struct {
	conn net.Conn
	sent atomic.Uint64
	done sync.WaitGroup
	end  sync.Once

	stop atomic.Bool
	err  error // why sending ended early; read after done
}

// FloodOption alters a flood.
type FloodOption func(*floodOptions)

type floodOptions struct{ cpu int }

// OnCPU binds the flood's thread to one CPU, counted from 0.
func OnCPU(cpu int) FloodOption { return func(o *floodOptions) { o.cpu = cpu } }

// StartFlood starts a flood to dst, which ends with Stop.
func StartFlood(dst netip.AddrPort, opts ...FloodOption) (*Flood, error) {
	o := floodOptions{cpu: -1}
	for _, set := range opts {
		set(&o)
	}
	conn, err := dial("ip:17", dst, netip.AddrPort{}, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("flooding %s: %w", dst, err)
	}
	ip, ok := conn.(*net.IPConn)
	if dst.Addr().Is6() && ok {
		// The kernel fills in the checksum, at this offset. IPv4 can do without one.
		if err := setOption(ip, unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, 6); err != nil {
			return nil, errors.Join(fmt.Errorf("flooding %s: %w", dst, err), conn.Close())
		}
	}
	f := &Flood{conn: conn}
	f.done.Go(func() { f.err = f.run(dst, o.cpu) })
	return f, nil
}

// Sent returns how many packets have been handed to the kernel so far, also those that the sender's
// own output hook dropped.
func (f *Flood) Sent() uint64 { return f.sent.Load() }

// Stop ends the flood and returns how many packets were sent, and an error if it couldn't go on
// until now. Stopping twice is no error.
func (f *Flood) Stop() (uint64, error) {
	f.end.Do(func() {
		f.stop.Store(true)
		f.done.Wait()
		_ = f.conn.Close()
	})
	return f.Sent(), f.err
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
		binary.BigEndian.PutUint16(packet, uint16(first+i%FloodPorts))
		_, err := f.conn.Write(packet)
		switch {
		case err == nil, errors.Is(err, unix.EPERM):
			f.sent.Add(1)
		case !isAny(err, unix.ENOBUFS, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH,
			unix.EACCES):
			return err // none of those by which rules and full queues speak
		}
	}
	return nil
}
