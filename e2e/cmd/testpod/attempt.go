package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/probe"
)

// errNoName is the failure of a name's resolution.
var errNoName = errors.New("no address")

// errUnsupported is a protocol that the program can't speak here.
var errUnsupported = errors.New("unsupported")

// attempt makes one new connection. The timeout holds for the name, if the host is one, and for the
// connection.
func attempt(ctx context.Context, target testprogram.Target, timeout time.Duration,
	opts ...probe.Option) testprogram.Result {
	addr, err := address(ctx, target, timeout)
	if err != nil {
		return failed(target, err)
	}
	result := probe.Connect(probe.Protocol(target.Protocol), addr,
		append(opts, probe.WithTimeout(timeout))...)
	if !result.OK {
		return failed(target, result.Err)
	}
	return testprogram.Result{Target: target.String(), OK: true, Reply: result.Reply,
		Kind: testprogram.OK}
}

// address resolves the target's host, once it is clear that its protocol can be spoken here.
func address(ctx context.Context, target testprogram.Target,
	timeout time.Duration) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(target.Host); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), target.Port),
			supported(target.Protocol, addr.Unmap())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", target.Host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("an empty answer")
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", errNoName, err)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), target.Port),
		supported(target.Protocol, addrs[0].Unmap())
}

// supported says why the protocol can't be spoken here. TCP and UDP always can.
//
// Without NET_RAW a raw socket is refused with the error that a packet dropped on its way out has
// too, so this must be known first.
func supported(protocol string, addr netip.Addr) error {
	domain, number := unix.AF_INET, unix.IPPROTO_ICMP
	if addr.Is6() {
		domain, number = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	switch protocol {
	case testprogram.ICMP:
	case testprogram.SCTP:
		if probe.HasSCTPSockets() {
			return nil
		}
		number = unix.IPPROTO_SCTP
	default:
		return nil
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, number)
	if err != nil {
		return fmt.Errorf("%w: opening a raw socket for %s: %w", errUnsupported, protocol, err)
	}
	return unix.Close(fd)
}

func failed(target testprogram.Target, err error) testprogram.Result {
	return testprogram.Result{Target: target.String(), Error: err.Error(), Kind: kindOf(err)}
}

func kindOf(err error) testprogram.Kind {
	for _, k := range []struct {
		err  error
		kind testprogram.Kind
	}{
		{errNoName, testprogram.NoName}, // first: it wraps others
		{errUnsupported, testprogram.Unsupported},
		{unix.EMSGSIZE, testprogram.TooBig},
		{probe.ErrNoReply, testprogram.NoReply},
		{probe.ErrTimeout, testprogram.Timeout},
		{probe.ErrReset, testprogram.Reset},
		{probe.ErrUnreachable, testprogram.Unreachable},
		{os.ErrDeadlineExceeded, testprogram.Timeout},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return testprogram.Failed
}
