package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/internal/prefixset"
)

// Node is what policy needs of a node.
type Node struct {
	Name string
	// Created decides between nodes that claim the same: the older one has it. It may be zero.
	Created time.Time
	// Addresses are those of status.addresses.
	Addresses []netip.Addr
	// PodCIDRs are the masked ranges of the node's pods.
	PodCIDRs []netip.Prefix
}

// TunnelAddresses are the node's source addresses inside the pod network: the network addresses of its pod CIDRs.
func (n Node) TunnelAddresses() []netip.Addr {
	var out []netip.Addr
	for _, cidr := range n.PodCIDRs {
		out = append(out, cidr.Addr())
	}
	return out
}

// address is the i-th of all addresses of the node, those outside the pod network first.
func (n Node) address(i int) netip.Addr {
	if i < len(n.Addresses) {
		return n.Addresses[i]
	}
	return n.PodCIDRs[i-len(n.Addresses)].Addr()
}

func (n Node) hasTunnel(a netip.Addr) bool {
	return slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// has reports whether an address is one of the node's, inside the pod network or outside.
func (n Node) has(a netip.Addr) bool { return slices.Contains(n.Addresses, a) || n.hasTunnel(a) }

// trusted are nodes with those of their pod CIDRs that they can be believed to have: one that overlaps that of a node which comes first, or
// begins with such a node's address, would make a tunnel address of somebody else's address. The overlay believes no more.
func trusted(nodes map[string]Node, own string) map[string]Node {
	out := make(map[string]Node, len(nodes))
	addresses := map[netip.Addr]bool{}
	var taken prefixset.Set
	for _, n := range bySeniority(nodes, own) {
		var cidrs []netip.Prefix
		for _, cidr := range n.PodCIDRs {
			if _, overlaps := taken.Overlapping(cidr); !overlaps && !addresses[cidr.Addr()] {
				taken.Add(cidr, n.Name)
				cidrs = append(cidrs, cidr)
			}
		}
		for _, a := range n.Addresses {
			addresses[a] = true
		}
		n.PodCIDRs = cidrs
		out[n.Name] = n
	}
	return out
}

// bySeniority lists nodes: first the own one, then by age and name.
func bySeniority(nodes map[string]Node, own string) []Node {
	return slices.SortedFunc(maps.Values(nodes), func(a, b Node) int {
		if (a.Name == own) != (b.Name == own) {
			if a.Name == own {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
}

// nodeBook is what is known of nodes, by name.
type nodeBook struct {
	told     map[string]Node
	believed map[string]Node // what of it is trusted; nil: not known yet. It is replaced, not changed.
	changed  bool            // since ipBlocks were filled
}

// SetNode adds or updates a node.
func (c *Cluster) SetNode(n Node) {
	if old, ok := c.nodes.told[n.Name]; ok && old.equal(n) {
		return
	}
	c.nodes.told[n.Name] = n
	c.nodes.believed, c.nodes.changed = nil, true
}

func (n Node) equal(o Node) bool {
	return n.Created.Equal(o.Created) && slices.Equal(n.Addresses, o.Addresses) && slices.Equal(n.PodCIDRs, o.PodCIDRs)
}

// DeleteNode forgets a node.
func (c *Cluster) DeleteNode(name string) {
	if _, ok := c.nodes.told[name]; ok {
		delete(c.nodes.told, name)
		c.nodes.believed, c.nodes.changed = nil, true
	}
}

// trustedNodes are all nodes as far as they are believed, by name.
func (c *Cluster) trustedNodes() map[string]Node {
	if c.nodes.believed == nil {
		c.nodes.believed = trusted(c.nodes.told, c.opts.Node)
	}
	return c.nodes.believed
}

// refillBlocks recomputes the ipBlocks in use after nodes have changed: a tunnel address may have joined or left them.
func (c *Cluster) refillBlocks() {
	if !c.nodes.changed {
		return
	}
	c.nodes.changed = false
	for id, set := range c.sets {
		if id.Kind == BlockSet {
			set.replace(c.blockMembers(set.Blocks))
		}
	}
}
