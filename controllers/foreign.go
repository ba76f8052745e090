package controllers

import (
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/policy"
)

// ForeignPods puts pods under policy that another CNI plugin wired. They are
// known by the addresses in their status, and where our plugin is chained
// behind the other one, by an attachment before that. The zero value is for
// nodes whose pods are all ours.
type ForeignPods struct {
	// Enabled is for nodes whose pods another plugin wires.
	Enabled bool
	// Guard drops what comes from or goes to addresses of the node's podCIDRs
	// that aren't a known pod's.
	Guard bool
}

// foreignID is the ID of a pod's endpoint, one for each name: a pod that
// takes the place of another takes its endpoint as well.
func foreignID(namespace, name string) string { return "status/" + namespace + "/" + name }

// set puts a pod of this node under policy, or ends that.
func (f ForeignPods) set(c *policy.Cluster, p *policy.Pod) {
	if !f.Enabled {
		return
	}
	id := foreignID(p.ID.Namespace, p.ID.Name)
	if p.HostNetwork || p.Finished || len(p.Addresses) == 0 {
		c.DeleteEndpoint(id)
		return
	}
	c.SetEndpoint(policy.Endpoint{ID: id, Pod: p.ID, Addresses: p.Addresses})
}

func (f ForeignPods) forget(c *policy.Cluster, key client.ObjectKey) {
	if f.Enabled {
		c.DeleteEndpoint(foreignID(key.Namespace, key.Name))
	}
}
