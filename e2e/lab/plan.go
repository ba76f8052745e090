package lab

import (
	"fmt"
	"net/netip"
)

// The address plan. Labs are apart, so all have the same one: the underlay is 192.168.0.0/24 and fd00:192:168::/64, pods have
// 10.244.0.0/16 and fd00:10:244::/48, of which node N has 10.244.N.0/24 and fd00:10:244:N::/64.
const (
	underlayBits4, underlayBits6 = 24, 64
	podBits4, podBits6           = 24, 64

	outsideFirst = 250 // the first of the outside host's addresses
	outsideCount = 4
)

// plan is the addresses of a lab.
type plan struct {
	families Families
}

// only keeps what the lab's families allow of a value for IPv4 and one for IPv6, in this order.
func only[T any](p plan, v4, v6 T) []T {
	switch p.families {
	case IPv4:
		return []T{v4}
	case IPv6:
		return []T{v6}
	default:
		return []T{v4, v6}
	}
}

// host returns the underlay addresses of the host with this number: a node's, or outsideFirst and up.
func (p plan) host(number int) []netip.Addr {
	return only(p, netip.MustParseAddr(fmt.Sprintf("192.168.0.%d", number)), netip.MustParseAddr(fmt.Sprintf("fd00:192:168::%d", number)))
}

// nodeName is the name of node number 1 and up.
func nodeName(number int) string { return fmt.Sprintf("node%d", number) }

// podCIDRs returns the pod ranges of a node.
func (p plan) podCIDRs(number int) []netip.Prefix {
	return only(p,
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/%d", number, podBits4)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/%d", number, podBits6)))
}

// outside returns the outside host's addresses, those of IPv4 first.
func (p plan) outside() []netip.Addr {
	var v4, v6 []netip.Addr
	for number := outsideFirst; number < outsideFirst+outsideCount; number++ {
		for _, addr := range p.host(number) {
			if addr.Is4() {
				v4 = append(v4, addr)
			} else {
				v6 = append(v6, addr)
			}
		}
	}
	return append(v4, v6...)
}

// onUnderlay is addr with the length of its subnet.
func onUnderlay(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(addr, underlayBits4)
	}
	return netip.PrefixFrom(addr, underlayBits6)
}
