package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/internal/prefixset"
	"github.com/sluice-net/sluice/link"
)

// Link is a link of the node, as far as it matters here.
type Link struct {
	Name     string
	MTU      int            // bytes
	Prefixes []netip.Prefix // its addresses, with what is on-link by them
	Loopback bool           // it leads nowhere: lo, or a dummy

	// Of a node whose underlay address is on a link that leads nowhere: whether routes from there
	// lead out by this link, and to which nodes' addresses.
	Leads   bool
	LeadsTo []netip.Addr
}

// Skipped is a part of the cluster that the node has no way to, and why.
type Skipped struct {
	Node   string
	Reason string
}

func (s Skipped) String() string { return s.Node + ": " + s.Reason }

// Plan is what Desired finds.
type Plan struct {
	State   link.State
	MTU     int        // of pods, bytes
	Local   netip.Addr // the node's tunnel endpoint, or its underlay address with HostGW
	Device  string     // the link with Local; empty if that leads nowhere, and routes decide
	Uplinks []string   // Device, or the links by which those routes lead
	Peers   []Peer     // that are reached, by name
	Skipped []Skipped  // by name; the node itself is among them if it does without a family
}

// Peer is another node that is reached.
type Peer struct {
	Name     string
	Endpoint netip.Addr // its underlay address
	PodCIDRs []netip.Prefix
	Direct   []netip.Prefix // those of PodCIDRs that are reached without a tunnel
}

// Desired is what the node named own should have in its kernel, among these nodes (which include
// it) and with these links. The order of nodes and links doesn't matter. It is an error if the node
// itself can't take part; peers that can't are skipped.
//
// What a peer claims isn't taken on trust: pod CIDRs outside the pod network, or that overlap those
// of a more senior node or cover somebody's underlay address, and underlay addresses that are the
// node's own or a pod's, are skipped with a reason.
func Desired(own string, nodes []Node, c Config, links []Link) (Plan, error) {
	b := builder{config: c, links: links, macs: map[link.MAC]string{}}
	nodes = slices.SortedFunc(slices.Values(nodes), bySeniority)
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == own })
	if i < 0 {
		return Plan{}, fmt.Errorf("there is no node %s", own)
	}
	if err := b.takeOwn(nodes[i], nodes); err != nil {
		return Plan{}, err
	}
	b.takeEndpoints(b.own)
	for _, n := range nodes {
		if n.Name != own {
			b.takePeer(n)
		}
	}
	slices.SortStableFunc(b.plan.Skipped, func(x, y Skipped) int {
		return strings.Compare(x.Node, y.Node)
	})
	slices.SortFunc(b.plan.Peers, func(x, y Peer) int { return strings.Compare(x.Name, y.Name) })
	return b.plan, nil
}

// builder collects a Plan.
type builder struct {
	config Config
	links  []Link
	own    Node
	family Family // of the underlay
	plan   Plan

	cidrs     prefixset.Set
	macs      map[link.MAC]string // owners
	endpoints []netip.Addr        // of the nodes so far, sorted

	// Where the underlay address is on a link that leads nowhere: the nodes' addresses that routes
	// lead to.
	ways map[netip.Addr]bool
}

// takeOwn finds the node's place on the underlay and adds what concerns it alone.
func (b *builder) takeOwn(n Node, all []Node) error {
	b.own = n
	if err := b.findUnderlay(all); err != nil {
		return err
	}
	if len(b.usable(n.PodCIDRs)) == 0 {
		return fmt.Errorf("node %s has no pod CIDR yet of a family that is on", n.Name)
	}
	b.checkFamilies()
	if b.config.Backend == VXLAN {
		b.addTunnel()
	}
	for _, cidr := range b.usable(n.PodCIDRs) {
		if err := b.checkOwnCIDR(cidr); err != nil {
			return err
		}
		b.cidrs.Add(cidr, n.Name)
		if b.config.Backend == VXLAN {
			b.add(link.Address{Link: b.config.Device(), Prefix: link.Single(cidr.Addr())})
		}
	}
	return nil
}

// checkFamilies notes which family the node's pods have to do without.
func (b *builder) checkFamilies() {
	for _, f := range []Family{IPv4, IPv6} {
		has := slices.ContainsFunc(b.own.PodCIDRs, func(p netip.Prefix) bool {
			return familyOf(p.Addr()) == f
		})
		if b.config.network(f).IsValid() && !has {
			b.skipf(b.own,
				"it has no %s pod CIDR, although %s is on: its pods get no such address", f, f)
		}
	}
}

func (b *builder) checkOwnCIDR(cidr netip.Prefix) error {
	if network := b.config.network(familyOf(cidr.Addr())); !contains(network, cidr) {
		return fmt.Errorf("pod CIDR %s of node %s is outside the pod network %s", cidr, b.own.Name,
			network)
	}
	if owner, overlaps := b.cidrs.Overlapping(cidr); overlaps {
		return fmt.Errorf("two pod CIDRs of node %s overlap: %s is one", owner, cidr)
	}
	if cidr.Contains(b.plan.Local) {
		return fmt.Errorf("pod CIDR %s of node %s contains its underlay address %s", cidr,
			b.own.Name, b.plan.Local)
	}
	return nil
}

func (b *builder) addTunnel() {
	mac := TunnelMAC(b.own.Name)
	b.macs[mac] = b.own.Name
	b.add(Tunnel{
		Name:    b.config.Device(),
		MAC:     mac,
		MTU:     b.plan.MTU,
		Up:      true,
		VNI:     b.config.VNI,
		Port:    b.config.Port,
		Local:   b.plan.Local,
		Below:   b.plan.Device,
		ZeroTx6: b.family == IPv6,
		ZeroRx6: true,
	})
}

func (b *builder) add(items ...link.Item) { b.plan.State = append(b.plan.State, items...) }

// linkOf is the link with an address of the node.
func (b *builder) linkOf(a netip.Addr) (Link, bool) {
	for _, l := range b.links {
		if slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return l, true
		}
	}
	return Link{}, false
}

// takeEndpoints notes where a node is that takes part: no pod can be there.
func (b *builder) takeEndpoints(n Node) {
	for _, f := range []Family{IPv4, IPv6} {
		if a := n.address(f); a.IsValid() && (n.Name == b.own.Name || b.checkPeerAddress(a) == "") {
			i, _ := slices.BinarySearchFunc(b.endpoints, a, netip.Addr.Compare)
			b.endpoints = slices.Insert(b.endpoints, i, a)
		}
	}
}

// usable is the CIDRs of families that are on, without host bits.
func (b *builder) usable(cidrs []netip.Prefix) []netip.Prefix {
	var usable []netip.Prefix
	for _, p := range cidrs {
		if p.IsValid() && !p.Addr().Is4In6() && b.config.network(familyOf(p.Addr())).IsValid() {
			usable = append(usable, p.Masked())
		}
	}
	return usable
}

func contains(network, p netip.Prefix) bool {
	return network.Bits() <= p.Bits() && network.Contains(p.Addr())
}
