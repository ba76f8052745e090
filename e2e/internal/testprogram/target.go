package testprogram

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// The protocols of targets and ports.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
	ICMP = "icmp"
)

// Port is what a pod serves, in text "tcp/80".
type Port struct {
	Protocol string
	Number   uint16
}

// String returns the port as ParsePort reads it.
func (p Port) String() string { return fmt.Sprintf("%s/%d", p.Protocol, p.Number) }

// ParsePort reads "tcp/80".
func ParsePort(text string) (Port, error) {
	protocol, number, _ := strings.Cut(text, "/")
	n, err := parsePort(number)
	if err == nil && (protocol == TCP || protocol == UDP || protocol == SCTP) {
		return Port{Protocol: protocol, Number: n}, nil
	}
	return Port{},
		fmt.Errorf("port %q: expected tcp, udp or sctp and a number, such as tcp/80", text)
}

// Target is where a connection goes, in text "tcp://10.244.1.2:80", "udp://[fd00::2]:53",
// "tcp://web.prod:80" or "icmp://10.244.1.2".
type Target struct {
	Protocol string
	Host     string // an address without brackets, or a name
	Port     uint16 // 0 for ICMP
}

// NewTarget is a target at an address. ICMP ignores the port.
func NewTarget(protocol string, addr netip.Addr, port uint16) Target {
	if protocol == ICMP {
		port = 0
	}
	return Target{Protocol: protocol, Host: addr.String(), Port: port}
}

// String returns the target as ParseTarget reads it.
func (t Target) String() string {
	host := t.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.Protocol == ICMP {
		return ICMP + "://" + host
	}
	return t.Protocol + "://" + net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// ParseTarget reads a target.
func ParseTarget(text string) (Target, error) {
	protocol, address, found := strings.Cut(text, "://")
	if !found {
		return Target{},
			fmt.Errorf("target %q: expected a protocol, host and port, such as tcp://10.244.1.2:80",
				text)
	}
	switch protocol {
	case ICMP:
		host := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ":/[]") ||
			host == "" {
			return Target{}, fmt.Errorf("target %q: expected a host without a port", text)
		}
		return Target{Protocol: protocol, Host: host}, nil
	case TCP, UDP, SCTP:
	default:
		return Target{}, fmt.Errorf("target %q: expected tcp, udp, sctp or icmp", text)
	}
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %w", text, err)
	}
	port, err := parsePort(number)
	if err != nil || host == "" {
		return Target{}, fmt.Errorf("target %q: expected a host and a port from 1 to 65535", text)
	}
	return Target{Protocol: protocol, Host: host, Port: port}, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q: expected 1 to 65535", text)
	}
	return uint16(n), nil
}
