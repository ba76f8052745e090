package cluster

import (
	"slices"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Traffic is a class of new connections between two ends: some ports of some protocols, and the
// protocols that have none. It is a value: methods return another one.
type Traffic struct {
	// Others: all that isn't of a protocol with ports, see withPorts. ICMP is among it.
	Others bool
	// Ports are of protocols with ports, canonical (see selector.MergePorts).
	Ports []selector.PortRange
}

// withPorts are the protocols of which policies name ports.
var withPorts = [...]uint8{policy.ProtocolTCP, policy.ProtocolUDP, policy.ProtocolSCTP}

// All is all traffic.
func All() Traffic {
	out := Traffic{Others: true}
	for _, protocol := range withPorts {
		out.Ports = append(out.Ports, allPorts(protocol))
	}
	return out
}

func allPorts(protocol uint8) selector.PortRange {
	return selector.PortRange{Protocol: protocol, Last: 65535}
}

// IsAll reports whether nothing is left out.
func (t Traffic) IsAll() bool { return t.Others && slices.Equal(t.Ports, All().Ports) }

// Or is what is in one of them.
func (t Traffic) Or(o Traffic) Traffic {
	return Traffic{t.Others || o.Others, selector.MergePorts(slices.Concat(t.Ports, o.Ports))}
}

// Minus is what is in t, and not in o.
func (t Traffic) Minus(o Traffic) Traffic {
	out := Traffic{Others: t.Others && !o.Others}
	for _, r := range t.Ports {
		out.Ports = append(out.Ports, subtract(r, o.Ports)...)
	}
	return out
}

// And is what is in both.
func (t Traffic) And(o Traffic) Traffic { return t.Minus(t.Minus(o)) }

// subtract takes canonical ranges away from one.
func subtract(from selector.PortRange, these []selector.PortRange) (out []selector.PortRange) {
	first := int(from.First) // 65536 is behind the last port
	for _, r := range these {
		if r.Protocol != from.Protocol || int(r.Last) < first || r.First > from.Last {
			continue
		}
		if int(r.First) > first {
			//nolint:gosec // below a port
			out = append(out, selector.PortRange{Protocol: from.Protocol, First: uint16(first),
				Last: r.First - 1})
		}
		first = int(r.Last) + 1
	}
	if first <= int(from.Last) {
		//nolint:gosec // not above a port
		out = append(out, selector.PortRange{Protocol: from.Protocol, First: uint16(first),
			Last: from.Last})
	}
	return out
}
