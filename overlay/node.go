package overlay

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-net/sluice/link"
)

// A Node is one machine of the cluster.
type Node struct {
	Name string
	// whose pod addresses are on the node, at most one of each family in practice
	PodCIDRs []netip.Prefix
	// how other nodes reach it (InternalIPs), in order, the first of a family counts
	Addresses  []netip.Addr
	UnderlayIP netip.Addr // instead of Addresses, for its family; the zero Addr for none
	// of two nodes with overlapping CIDRs the older one keeps its own; may be zero
	Created time.Time
}

// address is where the node's pods are reached in a family of the underlay, or the zero Addr.
func (n Node) address(f Family) netip.Addr {
	if f.of(n.UnderlayIP) {
		return n.UnderlayIP.Unmap()
	}
	for _, a := range n.Addresses {
		if f.of(a) {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// bySeniority orders nodes by age, then by name. Who comes first keeps what two of them claim.
func bySeniority(a, b Node) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
}

// Family is an address family.
type Family int

// The address families. AnyFamily leaves the choice open.
const (
	AnyFamily Family = 0
	IPv4      Family = 4
	IPv6      Family = 6
)

func (f Family) String() string {
	if f == AnyFamily {
		return "any family"
	}
	return fmt.Sprintf("IPv%d", int(f))
}

func (f Family) of(a netip.Addr) bool { return a.IsValid() && familyOf(a) == f }

func familyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// TunnelMAC is the address of a node's tunnel device: a hash of the node's name, so that peers need
// nothing else to know it. It is locally administered and unicast.
func TunnelMAC(node string) link.MAC {
	sum := sha256.Sum256([]byte("sluice tunnel of " + node))
	mac := link.MAC(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}
