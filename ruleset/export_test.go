package ruleset

// Names that the packet tests look for in the kernel.
var (
	AnyHostPortMap = anyHostPortMap
	Leaving        = leaving
)

// FirstMasquerade is the first port of masqueraded UDP.
const FirstMasquerade = firstMasquerade
