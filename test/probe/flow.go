package probe

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/sluice-net/sluice/test/stretch"
)

// echoTimeout is how long Flow.Echo waits unless WithTimeout says otherwise. Within it TCP sends
// again of itself.
var echoTimeout = stretch.By(time.Second)

// Flow is a lasting connection: one source port, one conntrack entry. It isn't safe for concurrent
// use.
type Flow struct {
	conn    net.Conn
	lines   *lineTalk // TCP only
	timeout time.Duration
	sent    int
}

// Open connects to dst by TCP or UDP and has one answer. It tries for up to 5 s, or as Within says.
// WithTimeout sets how long each Echo waits (1 s unless set). The flow is the caller's to close.
func Open(proto Protocol, dst netip.AddrPort, opts ...Option) (*Flow, error) {
	if proto != TCP && proto != UDP {
		return nil, fmt.Errorf("no flows over %s", proto)
	}
	deadline := time.Now().Add(newOptions(opts).patience)
	for {
		flow, err := open(proto, dst, opts)
		if err == nil || time.Now().After(deadline) {
			return flow, err
		}
		<-time.After(resendEvery)
	}
}

func open(proto Protocol, dst netip.AddrPort, opts []Option) (*Flow, error) {
	o := newOptions(opts)
	if !o.timeoutSet {
		o.timeout = echoTimeout
	}
	conn, err := dial(string(proto), dst, o.source, time.Now().Add(o.timeout))
	if err != nil {
		return nil, reason(err)
	}
	f := &Flow{conn: conn, timeout: o.timeout}
	if proto == TCP {
		f.lines = newLineTalk(conn)
	}
	if err := f.Echo(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Echo sends a line and waits for its answer; answers to earlier lines are passed over. The error
// says why there was none: it wraps ErrTimeout, ErrReset or ErrUnreachable. After a timeout, a TCP
// flow may be tried again.
func (f *Flow) Echo() error {
	f.sent++
	word := strconv.Itoa(f.sent)
	deadline := time.Now().Add(f.timeout)
	if f.lines == nil {
		_, err := query(f.conn, word, deadline)
		return err
	}
	if err := f.conn.SetDeadline(deadline); err != nil {
		return reason(err)
	}
	if _, err := f.lines.ask(word); err != nil {
		return reason(err)
	}
	return nil
}

// LocalAddr returns the flow's source as its own end sees it.
func (f *Flow) LocalAddr() netip.AddrPort { return addrPort(f.conn.LocalAddr()) }

// Close ends the flow. Closing twice is no error.
func (f *Flow) Close() { _ = f.conn.Close() }
