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
// forgotten, if it ever knew it: others' agents let pass what looks like an old connection.
type sender struct {
	lab  *lab.Lab
	name string
	last atomic.Uint32 // of the ports, counted on
}

// Ports of senders. At a question by three flows in askEvery, half a minute goes by until one comes
// again. So long the kernel remembers a question with an answer (nf_conntrack_udp_timeout), and
// more of them by forgetSoon.
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
	cutWithin  = time.Second            // from when all are denied
	flowLimit  = time.Minute            // a policy without effect by then never has one
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
	return time.Time{}, fmt.Errorf("%s has no answer from %s within %s", f.from.name, f.to,
		flowLimit)
}

// awaitDenial makes new connections until one and the next have no answer, and returns when the
// first of the two began: a busy machine may be late once.
func (f *flow) awaitDenial() (began time.Time, err error) {
	err = f.from.lab.Do(f.from.name, func() error {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		silent := false
		for start := time.Now(); time.Since(start) < flowLimit; <-tick.C {
			now := time.Now()
			answers, err := f.askAnew()
			switch {
			case err != nil || silent && !answers:
				return err
			case !answers:
				began, silent = now, true
			default:
				silent = false
			}
		}
		return fmt.Errorf("%s has answers from %s for %s", f.from.name, f.to, flowLimit)
	})
	return began, err
}

// askAnew asks by a new connection.
func (f *flow) askAnew() (bool, error) {
	conn, err := f.dial()
	if err != nil {
		return false, err
	}
	answers, err := ask(conn, askTimeout)
	return answers, errors.Join(err, conn.Close())
}

// isCut says whether the old connection comes to have no answers any more.
func (f *flow) isCut() (bool, error) {
	silent := false
	for start := time.Now(); time.Since(start) < cutWithin; {
		answers, err := ask(f.conn, askTimeout)
		if err != nil || silent && !answers {
			return true, err
		}
		silent = !answers
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
