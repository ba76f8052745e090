package testnet

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// echoTimeout is how long Flow.Echo waits unless WithTimeout says otherwise. Within it TCP sends again of itself.
const echoTimeout = time.Second

// Flow is a lasting connection: one source port, one conntrack entry. It isn't safe for concurrent use.
type Flow struct {
	proto   Protocol
	conn    net.Conn
	lines   *bufio.Reader // TCP only
	timeout time.Duration
	sent    int
	partial string // what came of a line before the deadline
}

// Open connects to dst by TCP or UDP and has one answer. It tries for up to 5 s (or as Within says) and then fails the test.
// WithTimeout sets how long each Echo waits (1 s unless set). The flow ends with Close, the host, or t.
func (h *Host) Open(t testing.TB, proto Protocol, dst netip.AddrPort, opts ...Option) *Flow {
	t.Helper()
	deadline := time.Now().Add(newOptions(opts).patience)
	for {
		flow, err := h.open(proto, dst, opts)
		if err == nil {
			t.Cleanup(flow.Close)
			h.onStop(flow.Close)
			return flow
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: expected a flow, got %v", h.describe(proto, dst), err)
		}
		<-time.After(resendEvery)
	}
}

func (h *Host) open(proto Protocol, dst netip.AddrPort, opts []Option) (*Flow, error) {
	if proto != TCP && proto != UDP {
		return nil, fmt.Errorf("no flows over %s", proto)
	}
	o := newOptions(opts)
	if !o.timeoutSet {
		o.timeout = echoTimeout
	}
	deadline := time.Now().Add(o.timeout)
	conn, err := h.dial(string(proto), dst, o.source, deadline)
	if err != nil {
		return nil, reason(err)
	}
	f := &Flow{proto: proto, conn: conn, timeout: o.timeout}
	if proto == TCP {
		f.lines = bufio.NewReader(conn)
		if _, err := f.lines.ReadString('\n'); err != nil { // the greeting
			f.Close()
			return nil, reason(err)
		}
	}
	if err := f.Echo(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Echo sends a line and waits for its answer; answers to earlier lines are passed over. The error says why there was none: it
// wraps ErrTimeout, ErrReset or ErrUnreachable. After a timeout, a TCP flow may be tried again.
func (f *Flow) Echo() error {
	f.sent++
	word := strconv.Itoa(f.sent)
	deadline := time.Now().Add(f.timeout)
	if f.proto == UDP {
		_, err := query(f.conn, word, deadline)
		return err
	}
	if err := f.conn.SetDeadline(deadline); err != nil {
		return reason(err)
	}
	if _, err := fmt.Fprintln(f.conn, word); err != nil {
		return reason(err)
	}
	for {
		line, err := f.lines.ReadString('\n')
		f.partial += line
		if err != nil {
			return reason(err)
		}
		line, f.partial = f.partial, ""
		if strings.HasSuffix(line, " "+word+"\n") {
			return nil
		}
	}
}

// LocalAddr returns the flow's source as its host sees it.
func (f *Flow) LocalAddr() netip.AddrPort { return addrPort(f.conn.LocalAddr()) }

// Close ends the flow. Closing twice is no error.
func (f *Flow) Close() { _ = f.conn.Close() }
