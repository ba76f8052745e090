package cni

import (
	"net/netip"
	"testing"
)

func TestHostPortsOverlap(t *testing.T) {
	t.Parallel()
	of := func(addr, protocol string, port uint16) HostPort {
		p := HostPort{HostPort: port, ContainerPort: 1, Protocol: protocol}
		if addr != "" {
			p.HostIP = netip.MustParseAddr(addr)
		}
		return p
	}
	for _, c := range []struct {
		a, b HostPort
		want bool
	}{
		{of("", "tcp", 80), of("", "tcp", 80), true},
		{of("", "tcp", 80), of("", "udp", 80), false},
		{of("", "tcp", 80), of("", "tcp", 81), false},
		{of("", "tcp", 80), of("192.0.2.1", "tcp", 80), true},
		{of("", "tcp", 80), of("::", "tcp", 80), true},
		{of("0.0.0.0", "tcp", 80), of("192.0.2.1", "tcp", 80), true},
		{of("0.0.0.0", "tcp", 80), of("::", "tcp", 80), false},
		{of("::", "tcp", 80), of("192.0.2.1", "tcp", 80), false},
		{of("192.0.2.1", "tcp", 80), of("192.0.2.2", "tcp", 80), false},
		{of("192.0.2.1", "tcp", 80), of("192.0.2.1", "tcp", 80), true},
		{of("127.0.0.1", "tcp", 80), of("::1", "tcp", 80), false},
	} {
		if c.a.overlaps(c.b) != c.want || c.b.overlaps(c.a) != c.want {
			t.Errorf("%s and %s overlap: %t and %t, want %t", c.a, c.b, c.a.overlaps(c.b),
				c.b.overlaps(c.a), c.want)
		}
	}
}
