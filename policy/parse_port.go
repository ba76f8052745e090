package policy

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/selector"
)

const maxPort = 65535

// ports reads the ports of a rule into canonical ranges and names. An item that can't be read is
// lost; a rule whose items are all lost matches no port.
func (p *parser) ports(at *field.Path,
	in []networkingv1.NetworkPolicyPort) ([]selector.PortRange, []NamedPort) {
	var ranges []selector.PortRange
	var named []NamedPort
	for i, port := range in {
		protocol, ok := p.protocol(at.Index(i), port.Protocol)
		if !ok {
			continue
		}
		switch {
		case port.Port != nil && port.Port.Type == intstr.String:
			if name, ok := p.portName(at.Index(i), port); ok {
				named = append(named, NamedPort{Protocol: protocol, Name: name})
			}
		default:
			if first, last, ok := p.portNumbers(at.Index(i), port); ok {
				ranges = append(ranges,
					selector.PortRange{Protocol: protocol, First: first, Last: last})
			}
		}
	}
	slices.SortFunc(named, NamedPort.Compare)
	return selector.MergePorts(ranges), slices.Compact(named)
}

// protocol reads a protocol. One that is absent is TCP; one that is empty is none, to an API server
// as well.
func (p *parser) protocol(at *field.Path, in *corev1.Protocol) (uint8, bool) {
	if in == nil {
		return ProtocolTCP, true
	}
	number, ok := protocolNumber(*in)
	if ok = ok && *in != ""; !ok {
		p.problem(at.Child("protocol"), *in, "TCP, UDP or SCTP")
	}
	return number, ok
}

// protocolNumber reads the protocol of a container's port; empty means TCP.
func protocolNumber(in corev1.Protocol) (uint8, bool) {
	switch in {
	case corev1.ProtocolTCP, "":
		return ProtocolTCP, true
	case corev1.ProtocolUDP:
		return ProtocolUDP, true
	case corev1.ProtocolSCTP:
		return ProtocolSCTP, true
	}
	return 0, false
}

func (p *parser) portName(at *field.Path, in networkingv1.NetworkPolicyPort) (string, bool) {
	name := in.Port.StrVal
	if problems := validation.IsValidPortName(name); len(problems) > 0 {
		p.problem(at.Child("port"), name,
			"a port number or a port name: "+strings.Join(problems, ", "))
		return "", false
	}
	if in.EndPort != nil {
		p.problem(at.Child("endPort"), *in.EndPort, "no endPort beside a named port")
		return "", false
	}
	return name, true
}

// portNumbers reads a port or a range. Without a port: every port.
func (p *parser) portNumbers(at *field.Path,
	in networkingv1.NetworkPolicyPort) (first, last uint16, ok bool) {
	if in.Port == nil {
		if in.EndPort != nil {
			p.problem(at.Child("endPort"), *in.EndPort, "a port beside endPort")
			return 0, 0, false
		}
		return 0, maxPort, true
	}
	low := in.Port.IntVal
	if low < 1 || low > maxPort {
		p.problem(at.Child("port"), low, "a number from 1 to 65535")
		return 0, 0, false
	}
	high := low
	if in.EndPort != nil {
		high = *in.EndPort
	}
	if high < low || high > maxPort {
		p.problem(at.Child("endPort"), high, "a number from port to 65535")
		return 0, 0, false
	}
	return uint16(low), uint16(high), true
}
