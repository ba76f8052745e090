package cni

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// HostPort is a port of the node that leads to a port of the pod: one entry of the CNI capability
// portMappings.
type HostPort struct {
	// HostIP is the address of the node. The zero Addr stands for all addresses of both families,
	// an unspecified one for all addresses of its family.
	HostIP        netip.Addr `json:"hostIP,omitzero"`
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
	Protocol      string     `json:"protocol"` // "tcp", "udp" or "sctp"
}

// String is as in "udp 192.0.2.1:53".
func (p HostPort) String() string {
	if !p.HostIP.IsValid() {
		return fmt.Sprintf("%s *:%d", p.Protocol, p.HostPort)
	}
	return fmt.Sprintf("%s %s", p.Protocol, netip.AddrPortFrom(p.HostIP, p.HostPort))
}

// validate returns an error that names the first invalid field, and what it may be.
func (p HostPort) validate() error {
	switch {
	case p.HostPort == 0:
		return errors.New("hostPort: 0, want 1 to 65535")
	case p.ContainerPort == 0:
		return errors.New("containerPort: 0, want 1 to 65535")
	case !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Protocol):
		return fmt.Errorf("protocol: %s, want tcp, udp or sctp", Quote(p.Protocol))
	case p.HostIP.IsValid() &&
		(p.HostIP.IsMulticast() || p.HostIP.Is4In6() || p.HostIP.Zone() != ""):
		return fmt.Errorf("hostIP: %s, want an address of the node", p.HostIP)
	}
	return nil
}

// overlaps reports whether a packet to the node can be for both.
func (p HostPort) overlaps(q HostPort) bool {
	if p.HostPort != q.HostPort || p.Protocol != q.Protocol {
		return false
	}
	switch {
	case !p.HostIP.IsValid() || !q.HostIP.IsValid():
		return true
	case p.HostIP.Is4() != q.HostIP.Is4():
		return false
	default:
		return p.HostIP == q.HostIP || p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified()
	}
}

// contradicts reports whether two host ports of one pod lead the same packets to different ports.
// If one is for fewer addresses than the other there is no contradiction: that one takes
// precedence.
func (p HostPort) contradicts(q HostPort) bool {
	different := p.ContainerPort != q.ContainerPort
	p.ContainerPort = q.ContainerPort
	return different && p == q
}

// Overlap returns the first of these host ports that is also among the others.
func Overlap(these, others []HostPort) (HostPort, bool) {
	for _, p := range these {
		if slices.ContainsFunc(others, p.overlaps) {
			return p, true
		}
	}
	return HostPort{}, false
}

// HasHostPort4 reports whether a host port has an IPv4 address.
func HasHostPort4(ports []HostPort) bool {
	return slices.ContainsFunc(ports, func(p HostPort) bool {
		return !p.HostIP.IsValid() || p.HostIP.Unmap().Is4()
	})
}

// MaxHostPorts is more than any pod has. So many can be compared each with each, and fit into a
// request.
const MaxHostPorts = 500

// ValidateHostPorts returns an error that names the first invalid host port of a pod, and why.
func ValidateHostPorts(ports []HostPort) error {
	if len(ports) > MaxHostPorts {
		return fmt.Errorf("portMappings: %d entries, want at most %d", len(ports), MaxHostPorts)
	}
	for i, p := range ports {
		if err := p.validate(); err != nil {
			return fmt.Errorf("portMappings[%d].%w", i, err)
		}
		if j := slices.IndexFunc(ports[:i], p.contradicts); j >= 0 {
			return fmt.Errorf(
				"portMappings[%d]: %s to port %d, want port %d as in portMappings[%d]", i, p,
				p.ContainerPort, ports[j].ContainerPort, j)
		}
	}
	return nil
}

// Bandwidth limits a pod's traffic: the CNI capability bandwidth. A rate of zero is no limit.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`  // to the pod, bits per second
	IngressBurst uint64 `json:"ingressBurst,omitempty"` // bits
	EgressRate   uint64 `json:"egressRate,omitempty"`   // from the pod, bits per second
	EgressBurst  uint64 `json:"egressBurst,omitempty"`  // bits
}

// Validate wants a rate of at least a byte and a burst, or neither. The kernel counts bursts in 32
// bits of bytes.
func (b Bandwidth) Validate() error {
	for _, of := range []struct {
		direction   string
		rate, burst uint64
	}{
		{"ingress", b.IngressRate, b.IngressBurst},
		{"egress", b.EgressRate, b.EgressBurst},
	} {
		switch {
		case of.rate == 0 && of.burst != 0:
			return fmt.Errorf("bandwidth.%sRate: 0 with a burst of %d bits, want a rate",
				of.direction, of.burst)
		case of.rate != 0 && of.rate < 8:
			return fmt.Errorf("bandwidth.%sRate: %d, want at least 8 bits per second", of.direction,
				of.rate)
		case of.rate != 0 && of.burst < 8:
			return fmt.Errorf("bandwidth.%sBurst: %d with a rate, want at least 8 bits",
				of.direction, of.burst)
		case of.burst/8 > math.MaxUint32:
			return fmt.Errorf("bandwidth.%sBurst: %d, want at most %d bits", of.direction, of.burst,
				uint64(math.MaxUint32)*8)
		}
	}
	return nil
}
