package cluster

import (
	"net/netip"

	"github.com/sluice-net/sluice/policy"
)

// Role says which end of flows an address is. It is a set of bits.
type Role uint8

const (
	// AsSource is the end that opened the flow.
	AsSource Role = 1 << iota
	// AsDestination is the end that the flow was opened to, behind a Service the one that answers.
	AsDestination
)

// Ends are ends of flows. No address has an empty role.
type Ends map[netip.Addr]Role

// Add adds what o has.
func (e Ends) Add(o Ends) {
	for a, role := range o {
		e[a] |= role
	}
}

// Remove takes out what o has.
func (e Ends) Remove(o Ends) {
	for a, role := range o {
		switch left := e[a] &^ role; {
		case left == 0:
			delete(e, a)
		case left != e[a]:
			e[a] = left
		}
	}
}

// Both returns what both have.
func (e Ends) Both(o Ends) Ends {
	out := Ends{}
	for a, role := range e {
		if both := role & o[a]; both != 0 {
			out[a] = both
		}
	}
	return out
}

// Has reports whether one of the ends of a flow is among them.
func (e Ends) Has(source, destination netip.Addr) bool {
	return e[source]&AsSource != 0 || e[destination]&AsDestination != 0
}

// subjectEnd is the end of flows that a pod is, where policies isolate it in this direction.
func subjectEnd(d policy.Direction) Role {
	if d == policy.Egress {
		return AsSource
	}
	return AsDestination
}

// peerEnd is the other end.
func peerEnd(d policy.Direction) Role { return (AsSource | AsDestination) &^ subjectEnd(d) }
