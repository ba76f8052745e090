package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/test/probe"
)

// Connect tries once to connect to dst, as probe.Connect does.
func (h *Host) Connect(proto Protocol, dst netip.AddrPort, opts ...Option) Result {
	return h.inside(func() Result { return probe.Connect(proto, dst, opts...) })
}

// MustReach fails the test unless the connection works, trying for up to 5 s (or as Within says).
// It returns the last result.
func (h *Host) MustReach(t testing.TB, proto Protocol, dst netip.AddrPort, opts ...Option) Result {
	t.Helper()
	result := h.inside(func() Result { return probe.Reach(proto, dst, opts...) })
	if !result.OK {
		t.Errorf("%s: expected connect, got %s", h.describe(proto, dst), result)
	}
	return result
}

// MustNotReach fails the test unless the connection is denied: by silence or by a reset. A
// connection that works fails it, and so do one that was set up but brought no line, and errors
// that aren't a denial, such as a missing route.
func (h *Host) MustNotReach(t testing.TB, proto Protocol, dst netip.AddrPort,
	opts ...Option) Result {
	t.Helper()
	result := h.Connect(proto, dst, opts...)
	if result.OK || !errors.Is(result.Err, ErrTimeout) && !errors.Is(result.Err, ErrReset) {
		t.Errorf("%s: expected timeout or reset, got %s", h.describe(proto, dst), result)
	}
	return result
}

// inside runs connect in the host's namespace.
func (h *Host) inside(connect func() Result) Result {
	var result Result
	err := h.Do(func() error {
		result = connect()
		return nil
	})
	if err != nil {
		return Result{Err: err}
	}
	return result
}

// describe names a connection: "pod-a -> pod-b tcp 10.0.0.3:80".
func (h *Host) describe(proto Protocol, dst netip.AddrPort) string {
	to := dst.String()
	if proto == ICMP {
		to = dst.Addr().String()
	}
	return fmt.Sprintf("%s -> %s%s %s", h.name, h.node.describe(dst.Addr()), proto, to)
}

// Open connects to dst by TCP or UDP and has one answer, as probe.Open does; otherwise it fails the
// test. The flow ends with Close, the host, or t.
func (h *Host) Open(t testing.TB, proto Protocol, dst netip.AddrPort, opts ...Option) *Flow {
	t.Helper()
	var flow *Flow
	err := h.Do(func() (err error) {
		flow, err = probe.Open(proto, dst, opts...)
		return err
	})
	if err != nil {
		t.Fatalf("%s: expected a flow, got %v", h.describe(proto, dst), err)
	}
	t.Cleanup(flow.Close)
	h.onStop(flow.Close)
	return flow
}
