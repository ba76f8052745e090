package enforcer

import (
	"net/netip"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
)

// Explain judges a flow by the policies and pods known now. own are addresses of this node.
func (e *Enforcer) Explain(f policy.Flow, own ...netip.Addr) cluster.Answer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.model.Explain(f, own...)
}

// Whose says what kind of address one is.
func (e *Enforcer) Whose(a netip.Addr) cluster.Whose {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.model.Whose(a)
}

// PodAddresses are the addresses by which policies mean a pod; none if the pod isn't known.
func (e *Enforcer) PodAddresses(namespace, name string) []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.model.PodAddresses(namespace, name)
}

// PodClaims are the addresses in a pod's status, and the pod's node.
func (e *Enforcer) PodClaims(namespace, name string) (said []netip.Addr, node string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.model.PodClaims(namespace, name)
}

// namespaceAt is the namespace of the pod that policies mean by an address, or "".
func (e *Enforcer) namespaceAt(a netip.Addr) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.model.NamespaceAt(a)
}

// judge reports for each connection whether policy allows it now.
func (e *Enforcer) judge(own []netip.Addr, entries []conntrack.Entry) []bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.model.judge(own, entries)
}

// Settled is what has to be in the kernel, as of one moment.
type Settled struct {
	Meaning *cluster.Cluster // a snapshot
	Config  ruleset.Config
	updates uint64
}

// Settled returns what has to be in the kernel, if all updates are there.
func (e *Enforcer) Settled() (s Settled, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == 0 || e.done != e.updates || e.lastErr != nil {
		return Settled{}, false
	}
	return Settled{e.model.Snapshot(), e.model.render.Config(), e.updates}, true
}

// StillSettled reports whether there was no update since then.
func (e *Enforcer) StillSettled(s Settled) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.updates == s.updates
}

// Refused is how many objects the kernel refuses at the moment.
func (e *Enforcer) Refused() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.refusals.reported)
}
