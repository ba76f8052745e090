package testnet

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const dnatTable = "testnet-dnat"

// DNAT sends connections to from on to to, as kube-proxy does for a Service with one endpoint: for
// what the node forwards and for its own, at the usual priority. A host that reaches itself that
// way is masqueraded, for which the node needs an address of the family (AddAddr). Both addresses
// are of one family, and proto has ports. The rules are in tables of this package's own, ip and ip6
// testnet-dnat, and end with the node.
func (n *Node) DNAT(proto Protocol, from, to netip.AddrPort) {
	n.t.Helper()
	if proto == ICMP || from.Addr().Is4() != to.Addr().Is4() {
		n.t.Fatalf("no DNAT of %s from %s to %s", proto, from, to)
	}
	if err := n.ensureRoute(from.Addr()); err != nil {
		n.t.Fatalf("DNAT of %s: %v", from, err)
	}
	ip := "ip"
	if from.Addr().Is6() {
		ip = "ip6"
	}
	translate := fmt.Sprintf("%s daddr %s %s dport %d dnat to %s", ip, from.Addr(), proto,
		from.Port(), to)
	hairpin := fmt.Sprintf("ct status dnat %s saddr %s %[1]s daddr %[2]s masquerade", ip, to.Addr())
	table := ip + " " + dnatTable
	n.nft(fmt.Sprintf(`
add table %[1]s
add chain %[1]s prerouting { type nat hook prerouting priority dstnat; }
add chain %[1]s output { type nat hook output priority -100; }
add chain %[1]s postrouting { type nat hook postrouting priority srcnat; }
add rule %[1]s prerouting %[2]s
add rule %[1]s output %[2]s
add rule %[1]s postrouting %[3]s
`, table, translate, hairpin), "-f", "-")
}

// ensureRoute makes the node's own connections to addr get as far as the output hook.
func (n *Node) ensureRoute(addr netip.Addr) error {
	_, err := n.space.nl.RouteGet(addr.AsSlice())
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.ENETUNREACH) {
		return fmt.Errorf("looking for a route to %s: %w", addr, err)
	}
	lo, err := n.space.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	return n.space.addRoute(lo, singleHost(addr), netip.Addr{}, netip.Addr{})
}
