package cluster_test

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// replica is what a reader of Take knows: it holds nothing but what Changes and the look-ups told
// it.
type replica struct {
	endpoints map[string]cluster.EndpointPolicy
	rules     map[policy.Ref][]policy.Clause
	sets      map[policy.SetID]map[policy.Member]struct{}
}

func newReplica() *replica {
	return &replica{map[string]cluster.EndpointPolicy{}, map[policy.Ref][]policy.Clause{},
		map[policy.SetID]map[policy.Member]struct{}{}}
}

// apply takes over changes; it fails on any that don't fit what is there.
func (r *replica) apply(c *cluster.Cluster, ch cluster.Changes) error {
	for id, s := range ch.Sets {
		members, known := r.sets[id]
		if s.Created == known {
			return fmt.Errorf("set %s: created %v, but known %v", id, s.Created, known)
		}
		if s.Deleted {
			delete(r.sets, id)
			continue
		}
		if !known {
			members = map[policy.Member]struct{}{}
			r.sets[id] = members
		}
		for _, m := range s.Add {
			if _, in := members[m]; in {
				return fmt.Errorf("set %s: %v joins twice", id, m)
			}
			members[m] = struct{}{}
		}
		for _, m := range s.Remove {
			if _, in := members[m]; !in {
				return fmt.Errorf("set %s: %v leaves but wasn't in", id, m)
			}
			delete(members, m)
		}
	}
	for _, ref := range ch.Rules {
		if parts, ok := c.Parts(ref); ok {
			r.rules[ref] = slices.Concat(parts...)
		} else {
			delete(r.rules, ref)
		}
	}
	for _, id := range ch.Endpoints {
		if e, ok := c.Endpoint(id); ok {
			r.endpoints[id] = e
		} else {
			delete(r.endpoints, id)
		}
	}
	return nil
}

// allows evaluates one direction of an endpoint from clauses and sets alone.
func (r *replica) allows(e cluster.EndpointPolicy, d policy.Direction, f policy.Flow) bool {
	peer := f.Source
	if d == policy.Egress {
		peer = f.Destination
	}
	for _, stage := range e.Isolation(d) {
		switch r.ask(stage, peer, f) {
		case policy.Accept:
			return true
		case policy.Deny:
			return false
		case policy.Pass:
		}
	}
	return true
}

// ask is what a stage says of a flow.
func (r *replica) ask(stage cluster.Stage, peer netip.Addr, f policy.Flow) policy.Verdict {
	for _, ref := range stage.Rules {
		for _, cl := range r.rules[ref] {
			if r.matches(cl, peer, f) {
				return cl.Verdict
			}
		}
	}
	return stage.End
}

func (r *replica) matches(cl policy.Clause, peer netip.Addr, f policy.Flow) bool {
	if cl.Peer != nil && !r.inRange(cl.Peer.ID, peer) {
		return false
	}
	if cl.Named != nil {
		_, ok := r.sets[cl.Named.ID][policy.Member{First: f.Destination, Last: f.Destination,
			Protocol: f.Protocol, Port: f.Port}]
		if !ok {
			return false
		}
	}
	return cl.Ports == nil || slices.ContainsFunc(cl.Ports, func(p selector.PortRange) bool {
		return p.Protocol == f.Protocol && p.First <= f.Port && f.Port <= p.Last
	})
}

func (r *replica) inRange(id policy.SetID, a netip.Addr) bool {
	for m := range r.sets[id] {
		if m.First.Is4() == a.Is4() && m.First.Compare(a) <= 0 && a.Compare(m.Last) <= 0 {
			return true
		}
	}
	return false
}

// allowsFlow evaluates a flow between local endpoints and others, from the replica.
func (r *replica) allowsFlow(f policy.Flow, node policy.Node) bool {
	at := func(a netip.Addr) *cluster.EndpointPolicy {
		for _, e := range r.endpoints {
			if slices.Contains(e.Addresses, a) {
				return &e
			}
		}
		return nil
	}
	source, destination := at(f.Source), at(f.Destination)
	if source != nil && destination != nil && source.ID == destination.ID {
		return true
	}
	if source != nil && !r.allows(*source, policy.Egress, f) {
		return false
	}
	ownNode := slices.Contains(node.Addresses, f.Source) ||
		slices.Contains(node.TunnelAddresses(), f.Source)
	return destination == nil || ownNode || r.allows(*destination, policy.Ingress, f)
}

// worldCluster returns a Cluster that holds the world of the meaning cases, every pod of it
// attached.
func worldCluster() *cluster.Cluster {
	c := cluster.New(cluster.Options{Node: cases.NodeName})
	for _, ns := range cases.Namespaces() {
		c.SetNamespace(ns.Name, ns.Labels)
	}
	c.SetNode(policy.NodeFrom(cases.Node()))
	for _, in := range cases.Pods() {
		p := policy.PodFrom(in)
		c.SetPod(p)
		c.SetEndpoint(policy.Endpoint{ID: p.ID.UID, Pod: p.ID, Interface: names.PodLink + p.ID.UID,
			Addresses: p.Addresses})
	}
	return c
}

var protocolNumbers = map[string]uint8{"tcp": policy.ProtocolTCP, "udp": policy.ProtocolUDP,
	"sctp": policy.ProtocolSCTP, "icmp": 1}

func worldFlow(f cases.Flow, family int) policy.Flow {
	out := policy.Flow{
		Source:      netip.MustParseAddr(cases.Addr(f.From, family)),
		Destination: netip.MustParseAddr(cases.Addr(f.To, family)),
		Protocol:    protocolNumbers[f.Protocol],
		Port:        f.Port,
	}
	if f.Protocol == "icmp" && family == 6 {
		out.Protocol = 58
	}
	return out
}
