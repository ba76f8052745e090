package lab

import (
	"fmt"
	"net/netip"
)

// The address plan. Labs are apart, so all have the same one. The underlay's first subnet is
// 192.168.0.0/17 and fd00:192:168::/64, the second 192.168.128.0/17 and fd00:192:168:1::/64. Pods
// have 10.244.0.0/16 and fd00:10:244::/48, of which node N has 10.244.N.0/24 and
// fd00:10:244:N::/64, and nodes that are objects only have /29s from 10.244.201.0 on.
const (
	underlayBits4, underlayBits6 = 17, 64
	podBits4, podBits6           = 24, 64

	maxSubnets   = 2
	outsideFirst = 250 // the first of the outside host's addresses
	outsideCount = 4
	routerNumber = 254

	ghostBits4      = 29
	ghostFirst      = 201                 // of 10.244.0.0/24 and up
	maxGhosts       = (256 - 201) * 8 * 4 // /29s in there
	ghostsPerOctet  = 250
	ghostFirstOctet = 1 // of 192.168.0.0 and up
)

var (
	podNetwork4 = netip.MustParsePrefix("10.244.0.0/16")
	podNetwork6 = netip.MustParsePrefix("fd00:10:244::/48")
)

// serviceCIDRs of the cluster. Nothing answers there: tests install what translates Service
// addresses themselves.
const (
	serviceCIDR4 = "10.96.0.0/16"
	serviceCIDR6 = "fd00:10:96::/112"
)

// plan is the addresses of a lab.
type plan struct {
	pods     Families
	underlay Families
	subnets  int
}

// only keeps what families allow of a value for IPv4 and one for IPv6, in this order.
func only[T any](families Families, v4, v6 T) []T {
	switch families {
	case IPv4:
		return []T{v4}
	case IPv6:
		return []T{v6}
	default:
		return []T{v4, v6}
	}
}

// networks are those of all pods.
func (p plan) networks() []netip.Prefix { return only(p.pods, podNetwork4, podNetwork6) }

// services are the ranges of Services' addresses.
func (p plan) services() []string { return only(p.pods, serviceCIDR4, serviceCIDR6) }

// subnetOf is the subnet of a node, counted from 0: nodes are on each in turn.
func (p plan) subnetOf(node int) int { return (node - 1) % p.subnets }

// host returns the addresses of the host with this number on a subnet.
func (p plan) host(subnet, number int) []netip.Addr {
	return only(p.underlay,
		netip.MustParseAddr(fmt.Sprintf("192.168.%d.%d", 128*subnet, number)),
		netip.MustParseAddr(fmt.Sprintf("fd00:192:168:%d::%d", subnet, number)))
}

// router returns the addresses of the router on a subnet.
func (p plan) router(subnet int) []netip.Addr { return p.host(subnet, routerNumber) }

// nodeName is the name of node number 1 and up.
func nodeName(number int) string { return fmt.Sprintf("node%d", number) }

// node is what node number 1 and up has at first.
func (p plan) node(number int) nodeState {
	return nodeState{
		Name: nodeName(number), Number: number,
		Addrs: p.host(p.subnetOf(number), number),
		PodCIDRs: only(p.pods,
			netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/%d", number, podBits4)),
			netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/%d", number, podBits6))),
	}
}

// ghost is node number 1 and up of those that are objects only, on the first subnet.
func (p plan) ghost(number int) nodeState {
	index := number - 1
	return nodeState{
		Name: fmt.Sprintf("ghost%d", number), Number: number,
		Addrs: only(p.underlay,
			netip.AddrFrom4([4]byte{192, 168, byte(ghostFirstOctet + index/ghostsPerOctet),
				byte(1 + index%ghostsPerOctet)}),
			netip.MustParseAddr(fmt.Sprintf("fd00:192:168::1:%x", number))),
		PodCIDRs: only(p.pods,
			netip.PrefixFrom(netip.AddrFrom4(
				[4]byte{10, 244, byte(ghostFirst + index/32), byte(index % 32 * 8)}), ghostBits4),
			netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/%d", 0x1000+number, podBits6))),
	}
}

// outside returns the outside host's addresses, those of IPv4 first.
func (p plan) outside() []netip.Addr {
	var v4, v6 []netip.Addr
	for number := outsideFirst; number < outsideFirst+outsideCount; number++ {
		for _, addr := range p.host(0, number) {
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

// sameFamily returns the one of addrs that is of the family of addr, or the zero Addr.
func sameFamily(addrs []netip.Addr, addr netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == addr.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
