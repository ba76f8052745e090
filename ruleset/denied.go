package ruleset

import (
	"fmt"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// DeniedChains is the prefix of the names of the chains that count denials: one for each isolated
// pod and direction, and one for each rule that denies. The former depend only on the pod and the
// agent's flags, so that their counters live as long as the isolation, through all changes of
// policies. A table has to be opened with it as table.Options.Tallied.
const DeniedChains = "denied/"

// deniedName names the chain that counts, logs and drops what is denied to an attachment of a pod.
func deniedName(pod selector.Pod, id string, d policy.Direction) string {
	return nft.Name("denied", pod.Namespace, pod.Name, shortHash(id), d.String())
}

// Denied is the pod and the direction whose denials a chain counts.
type Denied struct {
	Pod       selector.Pod
	Direction policy.Direction
}

// Denied returns, by the names of chains, whose denials they count: for all rendered endpoints,
// isolated or not.
func (r *Renderer) Denied() map[string]Denied {
	out := make(map[string]Denied, len(policy.Directions)*len(r.endpoints))
	for id, e := range r.endpoints {
		for _, d := range policy.Directions {
			out[deniedName(e.pod, id, d)] = Denied{Pod: e.pod, Direction: d}
		}
	}
	return out
}

// deniedChain renders it.
func (cfg *Config) deniedChain(e *cluster.EndpointPolicy, d policy.Direction) *nft.Chain {
	return cfg.denyingChain(deniedName(e.Pod, e.ID, d),
		fmt.Sprintf("of %s/%s", e.Pod.Namespace, e.Pod.Name), d)
}

// denyingChain is a chain that counts, samples and drops. A segment that opens no connection is
// reset, and that is a denial like a drop.
func (cfg *Config) denyingChain(name, whose string, d policy.Direction) *nft.Chain {
	deny := rule(fmt.Sprintf("denied: %s %s", d, whose), nft.Count{})
	if cfg.LogPerSecond > 0 {
		rate, burst := sampleLimit(cfg.LogPerSecond)
		deny.Statements = append(deny.Statements,
			nft.Sample{Group: cfg.LogGroup, Prefix: samplePrefix + d.String(), PerSecond: rate,
				Burst: burst})
	}
	return &nft.Chain{Name: name, Rules: []nft.Rule{
		deny,
		rule("no new connection: tell the sender", nft.MatchTCPNoSYN{}, nft.ResetTCP{}),
		rule("", do(nft.Drop)),
	}}
}

// samplePrefix is before the direction in a sample's log prefix.
const samplePrefix = "sluice "

// SampleDirection reads the log prefix of a sample: the direction in which the packet was denied,
// and whether the sample is of our rules.
func SampleDirection(prefix string) (d policy.Direction, ours bool) {
	for _, d := range policy.Directions {
		if prefix == samplePrefix+d.String() {
			return d, true
		}
	}
	return 0, false
}

// sampleLimit is the token bucket of one direction. A bucket that is full lets burst samples pass
// at once, and one more at the end of each 1/rate seconds: within any second burst+rate-1 of them.
// That is half of the pod's bound, so both directions together keep it.
func sampleLimit(perSecond uint64) (rate uint64, burst uint32) {
	half := max(perSecond/2, 1)
	rate = (half + 1) / 2
	return rate, uint32(min(half+1-rate, 1<<16)) //nolint:gosec // bounded
}
