package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
)

// sender is a pod of a lab. Each of its connections has a port that connection tracking has
// forgotten, if it ever knew it: others' agents let pass what an old connection's packets look like.
type sender struct {
	lab  *lab.Lab
	name string
	last atomic.Uint32 // of the ports, counted on
}

// Ports of senders. At a question by three flows in askEvery, half a minute goes by until one comes
// again, which is how long the kernel remembers a question with an answer (nf_conntrack_udp_timeout).
const firstPort, lastPort = 10_000, 65_000

func (s *sender) nextPort() int {
	return firstPort + int(s.last.Add(1)%(lastPort-firstPort))
}

// flow is from a pod to a UDP server that answers each datagram.
type flow struct {
	from *sender
	to   netip.AddrPort
	conn *net.UDPConn // see renew
}

const (
	askEvery   = 2 * time.Millisecond
	askTimeout = 200 * time.Millisecond // a new connection without an answer by then is denied
	cutWithin  = time.Second
	flowLimit  = time.Minute // a policy without effect by then never has one
)

// renew opens the connection that awaitAnswer and isCut are about, and closes the one before.
func (f *flow) renew() error {
	f.close()
	return f.from.lab.Do(f.from.name, func() (err error) { f.conn, err = f.dial(); return err })
}

func (f *flow) close() {
	if f.conn != nil {
		_ = f.conn.Close() // it has nothing left to say
	}
}

func (f *flow) dial() (*net.UDPConn, error) {
	return net.DialUDP("udp", &net.UDPAddr{Port: f.from.nextPort()},
		net.UDPAddrFromAddrPort(f.to))
}

// awaitAnswer asks until an answer comes, and returns when that was.
func (f *flow) awaitAnswer() (time.Time, error) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < flowLimit; <-tick.C {
		if answers, err := ask(f.conn, askEvery); answers || err != nil {
			return time.Now(), err
		}
	}
	return time.Time{}, fmt.Errorf("%s has no answer from %s within %s", f.from.name, f.to, flowLimit)
}

// awaitDenial makes new connections until one has no answer, and returns when that one began.
func (f *flow) awaitDenial() (began time.Time, err error) {
	err = f.from.lab.Do(f.from.name, func() error {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for start := time.Now(); time.Since(start) < flowLimit; <-tick.C {
			began = time.Now()
			conn, err := f.dial()
			if err != nil {
				return err
			}
			answers, err := ask(conn, askTimeout)
			if err := errors.Join(err, conn.Close()); !answers || err != nil {
				return err
			}
		}
		return fmt.Errorf("%s has answers from %s for %s", f.from.name, f.to, flowLimit)
	})
	return began, err
}

// isCut says whether the old connection has no answer any more.
func (f *flow) isCut() (bool, error) {
	for start := time.Now(); time.Since(start) < cutWithin; {
		if answers, err := ask(f.conn, askTimeout); !answers || err != nil {
			return true, err
		}
	}
	return false, nil
}

// ask says whether an answer came in time, if only to what was asked before.
func ask(conn *net.UDPConn, within time.Duration) (bool, error) {
	if _, err := conn.Write([]byte("?")); unreachable(err) {
		return false, nil // of an earlier one
	} else if err != nil {
		return false, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return false, err
	}
	n, err := conn.Read(make([]byte, 1500))
	if unreachable(err) || errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return n > 0, err
}
