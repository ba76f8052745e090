package selector

import (
	"fmt"
	"net/netip"

	"go4.org/netipx"
	netutils "k8s.io/utils/net"
)

// mappedBits is the length of ::ffff:0:0/96, the prefix of IPv4-mapped IPv6 addresses (RFC 4291,
// section 2.5.5.2).
const mappedBits = 96

// ParseCIDR reads an address block as an API server reads it, which is more than
// [netip.ParsePrefix] does: objects stored long ago keep old spellings.
//
//   - Bits behind the prefix length are cleared: 10.1.2.3/8 is 10.0.0.0/8.
//   - Leading zeros are decimal: 010.0.0.0/8 is 10.0.0.0/8.
//   - A block of IPv4-mapped addresses is an IPv4 block: ::ffff:10.0.0.0/104 is 10.0.0.0/8. With
//     less than 96 bits it covers more than mapped addresses, and is an IPv6 block.
//
// The result is masked and never IPv4-mapped. The error quotes s.
func ParseCIDR(s string) (netip.Prefix, error) {
	_, block, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{},
			fmt.Errorf("reading %q as a CIDR block (such as 10.0.0.0/8 or fd00::/64): %w", s, err)
	}
	addr, ok := netip.AddrFromSlice(block.IP)
	if !ok {
		return netip.Prefix{},
			fmt.Errorf("reading %q as a CIDR block: the address has %d bytes", s, len(block.IP))
	}
	bits, size := block.Mask.Size()
	if addr.Is4In6() && size == 128 {
		bits -= mappedBits
	}
	return netip.PrefixFrom(addr.Unmap(), bits).Masked(), nil
}

// Within reports whether all addresses of the inner block are in the outer one.
func Within(inner, outer netip.Prefix) bool {
	return inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

// Subtract returns the addresses of block that are in none of the excepts, as inclusive ranges:
// disjoint, in ascending order, and with at least one address between any two. The result is empty
// if the excepts cover the block.
//
// Excepts may overlap, reach beyond the block or lie outside it. One of the other address family
// changes nothing. If block or an except is invalid (such as the zero Prefix), the result is empty:
// what should have been excepted is unknown, and nothing may be allowed by mistake.
func Subtract(block netip.Prefix, except []netip.Prefix) []netipx.IPRange {
	var set netipx.IPSetBuilder
	set.AddPrefix(block)
	for _, e := range except {
		set.RemovePrefix(e)
	}
	rest, err := set.IPSet()
	if err != nil {
		return nil
	}
	return rest.Ranges()
}
