package controllers

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// PolicyOnlyPods puts pods that another CNI plugin wired under policy. They are known by the
// addresses in their status. Where our plugin is chained behind the other one, an attachment comes
// earlier. The zero value is for nodes whose pods are all ours.
type PolicyOnlyPods struct {
	// Enabled is for nodes whose pods another plugin wires.
	Enabled bool
	// Guard drops what comes from or goes to addresses of the node's podCIDRs that aren't a known
	// pod's.
	Guard bool
	// Left gets the addresses that pods of this node have left; may be nil.
	Left func(addrs []netip.Addr)

	held map[string]statusPod // by endpoint
}

// statusPod is the pod that has an endpoint's addresses.
type statusPod struct {
	pod       selector.Pod
	addresses []netip.Addr
}

// statusID is the ID of a pod's endpoint. It follows from the pod's name: a pod that replaces
// another of its name gets its endpoint.
func statusID(namespace, name string) string { return "status/" + namespace + "/" + name }

// set puts a pod of this node under policy, or takes it out.
func (f *PolicyOnlyPods) set(c *cluster.Cluster, p *policy.Pod) {
	if !f.Enabled {
		return
	}
	id := statusID(p.ID.Namespace, p.ID.Name)
	if p.HostNetwork || p.Finished || len(p.Addresses) == 0 {
		c.DeleteEndpoint(id)
		f.hold(id, statusPod{})
		return
	}
	c.SetEndpoint(policy.Endpoint{ID: id, Pod: p.ID, Addresses: p.Addresses, FromStatus: true})
	f.hold(id, statusPod{p.ID, p.Addresses})
}

func (f *PolicyOnlyPods) forget(c *cluster.Cluster, key policy.Key) {
	if f.Enabled {
		id := statusID(key.Namespace, key.Name)
		c.DeleteEndpoint(id)
		f.hold(id, statusPod{})
	}
}

// hold notes the pod that has an endpoint's addresses now, and has the last pod's addresses
// forgotten. Like set and forget, it is called within Enforcer.Update.
func (f *PolicyOnlyPods) hold(id string, now statusPod) {
	was := f.held[id]
	if f.held == nil {
		f.held = map[string]statusPod{}
	}
	f.held[id] = now
	if len(now.addresses) == 0 {
		delete(f.held, id)
	}
	left := slices.DeleteFunc(slices.Clone(was.addresses), func(a netip.Addr) bool {
		return was.pod == now.pod && slices.Contains(now.addresses, a)
	})
	if f.Left != nil && len(left) > 0 {
		f.Left(left)
	}
}
