package cluster

import (
	"net/netip"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Judge says of many flows, quickly, whether this node's part of them is allowed: the egress of a
// source and the ingress of a destination that are attached here. It holds for the Cluster as it is
// when NewJudge is called, and must not be used after a change.
type Judge struct {
	c     *Cluster
	own   map[netip.Addr]bool // addresses of the node
	pods  map[selector.Number]*judged
	known map[judgedFlow]bool
}

// judged is a pod that is attached here and its policies, by direction.
type judged struct {
	*podRecord
	policies [len(policy.Directions)]tiers
}

// judgedFlow is half of a flow's verdict.
type judgedFlow struct {
	policy.Flow
	direction policy.Direction
}

// NewJudge returns a Judge. The addresses are those that this node has: what its Node object says
// doesn't count.
func (c *Cluster) NewJudge(own []netip.Addr) *Judge {
	c.settle()
	j := &Judge{
		c:     c,
		own:   map[netip.Addr]bool{},
		pods:  map[selector.Number]*judged{},
		known: map[judgedFlow]bool{},
	}
	for _, a := range own {
		j.own[a.Unmap().WithZone("")] = true
	}
	return j
}

// Allows reports whether neither end's policies deny the flow here. An end that isn't attached to
// this node is not asked, nor is one that is the node itself, whatever a pod's status says.
func (j *Judge) Allows(f policy.Flow) bool {
	for _, d := range policy.Directions {
		at, other := f.Ends(d)
		pod := j.podAt(at)
		if pod != nil && !j.isOwn(at) && j.c.exempt(pod.podRecord, d, other, j.isOwn) == "" &&
			!j.allows(pod, d, f) {
			return false
		}
	}
	return true
}

// isOwn reports whether an address is this node's.
func (j *Judge) isOwn(a netip.Addr) bool {
	return j.own[a] || a.IsLoopback()
}

// podAt returns the pod at an address, if it is attached here by it.
func (j *Judge) podAt(a netip.Addr) *judged {
	rec := j.c.pods.owner(a)
	if rec == nil || !j.c.enforced(rec) || !rec.attachedTo(a) {
		return nil
	}
	if known := j.pods[rec.number]; known != nil {
		return known
	}
	out := &judged{podRecord: rec}
	for _, d := range policy.Directions {
		var policies []*policy.Policy
		for _, stage := range j.c.isolation(rec.number, d) {
			for _, k := range stage.Policies {
				policies = append(policies, j.c.policies[k])
			}
		}
		out.policies[d] = inTiers(policies)
	}
	j.pods[rec.number] = out
	return out
}

func (j *Judge) allows(pod *judged, d policy.Direction, f policy.Flow) bool {
	if pod.policies[d].empty() {
		return true
	}
	key := judgedFlow{f, d}
	allowed, known := j.known[key]
	if !known {
		_, other := f.Ends(d)
		o := j.c.otherEnd(pod.podRecord, d, other)
		allowed = j.c.ask(&pod.policies[d], o, f, d, nil).allowed
		j.known[key] = allowed
	}
	return allowed
}
