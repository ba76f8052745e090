package cluster

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/policy"
)

// claimsOf are all addresses that the node says it has, outside the pod network and inside.
func claimsOf(n policy.Node) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, list := range [...][]netip.Addr{n.Addresses, n.Underlay} {
			for _, a := range list {
				if !yield(a) {
					return
				}
			}
		}
		for _, cidr := range n.PodCIDRs {
			if !yield(cidr.Addr()) {
				return
			}
		}
	}
}

func equalNodes(n, o policy.Node) bool {
	return n.Created.Equal(o.Created) && slices.Equal(n.Addresses, o.Addresses) &&
		slices.Equal(n.Underlay, o.Underlay) && slices.Equal(n.PodCIDRs, o.PodCIDRs)
}

// sameClaims reports whether two states of a node, as far as it is believed, have the same
// addresses and ranges.
func sameClaims(n, o policy.Node) bool {
	o.Created = n.Created
	return equalNodes(n, o)
}

// nodeBook is what is known of nodes.
type nodeBook struct {
	told     map[string]policy.Node // by name
	networks []netip.Prefix         // of all pods; nil: not known
	standing *standing              // what pods and sets go by
	changed  bool                   // told or networks, since the standing was found
}

// SetNode adds or updates a node.
func (c *Cluster) SetNode(n policy.Node) {
	if old, ok := c.nodes.told[n.Name]; ok && equalNodes(old, n) {
		return
	}
	c.nodes.told[n.Name] = n
	c.nodes.changed = true
}

// DeleteNode forgets a node.
func (c *Cluster) DeleteNode(name string) {
	if _, ok := c.nodes.told[name]; ok {
		delete(c.nodes.told, name)
		c.nodes.changed = true
	}
}

// Nodes lists the names of all known nodes, in no order.
func (c *Cluster) Nodes() []string { return slices.Collect(maps.Keys(c.nodes.told)) }

// Name is the name of this node.
func (c *Cluster) Name() string { return c.opts.Node }

// NodesOf lists the nodes that have pods of each of some namespaces, by namespace and in no order.
// It walks all pods, once.
func (c *Cluster) NodesOf(namespaces ...string) map[string][]string {
	out := make(map[string][]string, len(namespaces))
	for _, namespace := range namespaces {
		out[namespace] = nil
	}
	for node, pods := range c.pods.byNode {
		for _, n := range pods {
			namespace := c.pods.records.key(n).Namespace
			found, asked := out[namespace]
			if asked && (len(found) == 0 || found[len(found)-1] != node) {
				out[namespace] = append(found, node)
			}
		}
	}
	return out
}

// SetPodNetworks says which ranges all pods of the cluster are in, and pod CIDRs of nodes must be.
// Until then, and where another plugin makes the network, they may be anywhere.
func (c *Cluster) SetPodNetworks(networks []netip.Prefix) {
	if !slices.Equal(networks, c.nodes.networks) {
		c.nodes.networks, c.nodes.changed = slices.Clone(networks), true
	}
}

// settle finds out anew what nodes are believed, after any of them has changed, and brings the pods
// and sets in line that this touches. A burst of changes is settled once, when something is asked.
func (c *Cluster) settle() {
	if !c.nodes.changed {
		return
	}
	old, now := c.nodes.standing, newStanding(c.nodes.told, c.opts, c.nodes.networks)
	c.nodes.standing, c.nodes.changed = now, false
	var changed []policy.Node // states before and after
	for name, n := range now.nodes {
		if was, ok := old.nodes[name]; !ok || !sameClaims(was, n) {
			changed = append(changed, was, n)
		}
	}
	for name, was := range old.nodes {
		if _, ok := now.nodes[name]; !ok {
			changed = append(changed, was, policy.Node{})
		}
	}
	c.reconsiderPods(changed)
	c.refillBlocks(changed)
}

// refillBlocks recomputes those ipBlocks in use that hold or held an address of nodes which have
// changed.
func (c *Cluster) refillBlocks(changed []policy.Node) {
	for id, set := range c.sets {
		concerns := func(n policy.Node) bool {
			for a := range claimsOf(n) {
				in := func(b policy.Block) bool { return b.CIDR.Contains(a) }
				if slices.ContainsFunc(set.Blocks, in) {
					return true
				}
			}
			return false
		}
		if id.Kind == policy.BlockSet && slices.ContainsFunc(changed, concerns) {
			set.replace(c.blockMembers(&set.Set))
		}
	}
}
