package others

import "github.com/google/nftables"

// Hook is where in netfilter a base chain judges packets.
type Hook struct {
	name   string // in nftables' words
	number nftables.ChainHook
	legacy string // legacy iptables' chain
}

// The hooks of IP packets that can block pods' traffic. input and output can block the nodes'
// tunnel, which is local to them.
var (
	Forward = Hook{"forward", *nftables.ChainHookForward, "FORWARD"} // what the node passes on
	Input   = Hook{"input", *nftables.ChainHookInput, "INPUT"}       // what is for the node
	Output  = Hook{"output", *nftables.ChainHookOutput, "OUTPUT"}    // what the node sends
)

// String is the hook's name in nftables.
func (h Hook) String() string { return h.name }

// has reports whether a chain filters packets on the hook.
func (h Hook) has(c *nftables.Chain) bool {
	return c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && *c.Hooknum == h.number
}
