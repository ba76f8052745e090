package ruleset

import (
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/selector"
)

// Names that the packet tests look for in the kernel.
var (
	AnyHostPortMap = anyHostPortMap
	Leaving        = leaving
)

// FirstMasquerade is the first port of masqueraded UDP.
const FirstMasquerade = firstMasquerade

// PortSet is the set of a rule's ports.
func PortSet(ranges []selector.PortRange) *nft.Set { return newPortSet(ranges).set() }
