package ruleset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// Renderer translates changes of a cluster.Cluster into patches of the ruleset. It remembers what
// it rendered, and is not safe for concurrent use.
type Renderer struct {
	cfg       Config
	endpoints map[string]renderedEndpoint
	rules     map[policy.Ref]renderedRules
	profiles  counter
	tiers     map[string]profile // those of profiles that are asked in an order
	ports     counter
	// holders are the endpoints that have an entry in a dispatch map. Several happen only by odd
	// reports of another plugin; the first by ID counts.
	holders map[dispatchKey]map[string]struct{}
	// hostPorts are the host ports of endpoints, by ID; stale are those endpoints that the next
	// patch renders anew, whatever the cluster says.
	hostPorts map[string][]HostPort
	stale     map[string]struct{}
	// rendered is the configuration of the last patch, if it has changed since then.
	rendered  *Config
	byContent byContent
}

// renderedEndpoint is what stands in the ruleset for an endpoint.
type renderedEndpoint struct {
	pod      selector.Pod
	elements map[dispatchKey]nft.Verdict
	chains   map[string]*nft.Chain
	profiles []profile
}

// dispatchKey is an element of a dispatch map, or of another map that distinguishes pods.
type dispatchKey struct {
	dispatchMap string
	element     nft.Element
}

// counter counts the users of shared objects by name.
type counter map[string]int

// add counts a user; first is true for the first one.
func (c counter) add(name string) (first bool) {
	c[name]++
	return c[name] == 1
}

// drop takes a user away; last is true when none is left.
func (c counter) drop(name string) (last bool) {
	if c[name]--; c[name] > 0 {
		return false
	}
	delete(c, name)
	return true
}

// NewRenderer returns a Renderer that has rendered nothing.
func NewRenderer(cfg Config) *Renderer {
	return &Renderer{
		cfg: cfg, endpoints: map[string]renderedEndpoint{},
		rules:    map[policy.Ref]renderedRules{},
		profiles: counter{}, tiers: map[string]profile{}, ports: counter{},
		holders:   map[dispatchKey]map[string]struct{}{},
		hostPorts: map[string][]HostPort{}, stale: map[string]struct{}{},
		byContent: newByContent(),
	}
}

// Config is the configuration that the next patch has.
func (r *Renderer) Config() Config { return r.cfg }

// CutBit is [Config.CutBit]. It reads only what never changes, so it may be called at any time.
func (r *Renderer) CutBit() uint8 { return r.cfg.CutBit() }

// SetNetwork changes what the ruleset knows of the pod network, and the guarded addresses of pods
// that another plugin wires. The next patch has it.
func (r *Renderer) SetNetwork(n Network, podRanges []netip.Prefix) {
	r.keepRendered()
	r.cfg.Network, r.cfg.PodRanges = n, podRanges
}

// SetIPVS says whether IPVS may send packets on. The next patch has it.
func (r *Renderer) SetIPVS(on bool) {
	if r.cfg.IPVS == on {
		return
	}
	r.keepRendered()
	r.cfg.IPVS = on
	for id := range r.endpoints {
		r.stale[id] = struct{}{} // whether it is known by its address alone has changed
	}
}

// keepRendered keeps the configuration of the last patch, which is about to change.
func (r *Renderer) keepRendered() {
	if r.rendered == nil {
		old := r.cfg
		r.rendered = &old
	}
}

// SetHostPorts sets the host ports of an endpoint, which needn't be in the cluster yet. The next
// patch has them.
func (r *Renderer) SetHostPorts(id string, ports []HostPort) {
	if !slices.Equal(r.hostPorts[id], ports) {
		r.stale[id] = struct{}{}
	}
	delete(r.hostPorts, id)
	if len(ports) > 0 {
		r.hostPorts[id] = ports
	}
}

// Ruleset renders everything the cluster holds, as of its last Take, and forgets what was rendered
// before.
func (r *Renderer) Ruleset(c *cluster.Cluster) *nft.Ruleset {
	hostPorts := r.hostPorts
	*r = *NewRenderer(r.cfg)
	r.hostPorts = hostPorts
	out := nft.NewRuleset()
	base := nft.Diff(out, r.cfg.base())
	r.byContent.rename(&base)
	out.Merge(base)
	out.Merge(r.Patch(c, c.All()))
	return out
}

// Patch renders changes that c.Take returned. Patches must reach the table in the order in which
// they were made, and none may be left out.
func (r *Renderer) Patch(c *cluster.Cluster, ch cluster.Changes) nft.Patch {
	out := nft.Patch{Chains: map[string]*nft.Chain{}, Sets: map[string]*nft.SetPatch{}}
	if r.rendered != nil {
		out = nft.Diff(r.rendered.base(), r.cfg.base())
		r.rendered = nil
	}
	for _, set := range ch.Sets {
		patchSet(&out, set)
	}
	for _, ref := range ch.Rules {
		r.patchRules(&out, c, ref)
	}
	for _, id := range ch.Endpoints {
		r.patchEndpoint(&out, c, id)
		delete(r.stale, id)
	}
	for id := range r.stale {
		r.patchEndpoint(&out, c, id)
	}
	clear(r.stale)
	r.patchTiers(&out, ch.Rules)
	r.byContent.rename(&out)
	return out
}

// patchEndpoint replaces what stands in the ruleset for an endpoint.
func (r *Renderer) patchEndpoint(out *nft.Patch, c *cluster.Cluster, id string) {
	old := r.endpoints[id]
	now := renderedEndpoint{}
	if e, ok := c.Endpoint(id); ok {
		now = r.cfg.endpoint(&e)
		r.cfg.Network.addHostPorts(now.elements, e.Addresses, r.hostPorts[id])
		r.endpoints[id] = now
	} else {
		delete(r.endpoints, id)
	}
	for name, chain := range now.chains {
		if was := old.chains[name]; was == nil || !was.Equal(chain) {
			out.Chains[name] = chain
		}
	}
	for name := range old.chains {
		if now.chains[name] == nil {
			out.Chains[name] = nil
		}
	}
	for _, p := range now.profiles {
		if r.profiles.add(p.name) {
			out.Chains[p.name] = r.profileChain(p)
			if p.ordered() {
				r.tiers[p.name] = p
			}
		}
	}
	for _, p := range old.profiles {
		if r.profiles.drop(p.name) {
			out.Chains[p.name] = nil
			delete(r.tiers, p.name)
		}
	}
	r.patchDispatch(out, id, old, now)
}

// patchDispatch moves an endpoint's entries in the dispatch maps.
func (r *Renderer) patchDispatch(out *nft.Patch, id string, old, now renderedEndpoint) {
	for key := range old.elements {
		if _, stays := now.elements[key]; stays {
			continue
		}
		delete(r.holders[key], id)
		if len(r.holders[key]) > 0 {
			put(setPatch(out, key.dispatchMap), key.element, r.verdict(key))
			continue
		}
		delete(r.holders, key)
		remove(setPatch(out, key.dispatchMap), key.element)
	}
	for key, verdict := range now.elements {
		if r.holders[key] == nil {
			r.holders[key] = map[string]struct{}{}
		}
		r.holders[key][id] = struct{}{}
		if was, is := old.elements[key]; !is || was != verdict {
			put(setPatch(out, key.dispatchMap), key.element, r.verdict(key))
		}
	}
}

// verdict returns what an entry of a dispatch map says.
func (r *Renderer) verdict(key dispatchKey) nft.Verdict {
	first := slices.Min(slices.Collect(maps.Keys(r.holders[key])))
	return r.endpoints[first].elements[key]
}

func setPatch(out *nft.Patch, name string) *nft.SetPatch {
	if out.Sets[name] == nil {
		out.Sets[name] = &nft.SetPatch{Put: map[nft.Element]nft.Verdict{},
			Remove: map[nft.Element]struct{}{}}
	}
	return out.Sets[name]
}

// put and remove note a change; of several for one element, the last counts.
func put(sp *nft.SetPatch, e nft.Element, v nft.Verdict) {
	delete(sp.Remove, e)
	sp.Put[e] = v
}

func remove(sp *nft.SetPatch, e nft.Element) {
	delete(sp.Put, e)
	sp.Remove[e] = struct{}{}
}

// endpoint renders an endpoint: its dispatch in each direction and, where it is isolated, its
// chain.
func (cfg *Config) endpoint(e *cluster.EndpointPolicy) renderedEndpoint {
	out := renderedEndpoint{pod: e.Pod, elements: map[dispatchKey]nft.Verdict{},
		chains: map[string]*nft.Chain{}}
	cfg.addEnds(out.elements, e.Interface, e.Addresses)
	for _, d := range policy.Directions {
		verdict := nft.Verdict{Kind: nft.Accept}
		if isolation := e.Isolation(d); len(isolation) > 0 {
			profiles := profilesOf(isolation, d)
			chain := cfg.podChain(e, d, profiles)
			out.chains[chain.Name] = chain
			if isolates(profiles) {
				denied := cfg.deniedChain(e, d)
				out.chains[denied.Name] = denied
			}
			out.profiles = append(out.profiles, profiles...)
			verdict = nft.JumpTo(chain.Name)
		}
		cfg.addPlaces(out.elements, e, d, verdict)
	}
	return out
}

// addPlaces adds the keys of an endpoint: its addresses, with its veth or alone.
func (cfg *Config) addPlaces(elements map[dispatchKey]nft.Verdict, e *cluster.EndpointPolicy,
	d policy.Direction, verdict nft.Verdict) {
	for _, a := range e.Addresses {
		family := familySuffix(a)
		if e.Interface != "" {
			elements[dispatchKey{dispatchMap(d, "veth", family),
				nft.AddrIfaceElement(a, e.Interface)}] = verdict
		}
		if cfg.knownByAddress(e.Interface) {
			elements[dispatchKey{dispatchMap(d, "address", family), nft.AddrElement(a)}] = verdict
		}
	}
}

// podChain renders the chain of one isolated pod and direction. Its length doesn't depend on the
// number of policies.
func (cfg *Config) podChain(e *cluster.EndpointPolicy, d policy.Direction,
	profiles []profile) *nft.Chain {
	// The attachment's hash, because an old pod and a new one with its name and veth may both be
	// attached for a while.
	c := &nft.Chain{Name: nft.Name("pod", e.Pod.Namespace, e.Pod.Name, shortHash(e.ID), d.String())}
	for _, a := range e.Self {
		c.Rules = append(c.Rules, rule("the pod itself",
			nft.MatchAddr{Field: peerField(d, a.Is4()), Addr: a}, do(nft.Accept)))
	}
	if d == policy.Egress && cfg.AllowPodToNode {
		c.Rules = append(c.Rules, rule("its own node", nft.MatchLocalDst{}, do(nft.Accept)))
	}
	c.Rules = append(c.Rules, rule("", nft.MatchCT{State: nft.CTInvalid}, do(nft.Drop)))
	for _, p := range profiles {
		c.Rules = append(c.Rules, rule("", nft.Do{Verdict: nft.JumpTo(p.name)}))
	}
	end := nft.Verdict{Kind: nft.Accept}
	if isolates(profiles) {
		end = nft.JumpTo(deniedName(e.Pod, e.ID, d))
	}
	c.Rules = append(c.Rules, rule("", nft.Do{Verdict: end}))
	return c
}

// profile is a tier's part of what isolates a pod in a direction, shared by the pods that have the
// same one.
type profile struct {
	name     string
	tier     policy.Tier
	rules    []policy.Ref
	policies []policy.Key // all that the rules are of
	end      policy.Verdict
}

// ordered reports whether the first rule that matches counts.
func (p profile) ordered() bool { return p.tier != policy.TierNetworkPolicy }

// isolates reports whether what no rule of them matches is denied.
func isolates(profiles []profile) bool { return profiles[len(profiles)-1].end == policy.Deny }

// profilesOf returns a profile for each tier of an isolation.
func profilesOf(isolation cluster.Isolation, d policy.Direction) []profile {
	var out []profile
	for _, stage := range isolation {
		var list strings.Builder
		for _, ref := range stage.Rules {
			fmt.Fprintf(&list, "%s%s\n", ref.Policy, ref.Subject)
		}
		p := profile{
			name: nft.Name("profile", shortHash(list.String()), d.String()), tier: stage.Tier,
			rules: stage.Rules, policies: stage.Policies, end: stage.End,
		}
		if p.ordered() {
			p.name = tierChain(stage, list.String(), d)
		}
		out = append(out, p)
	}
	return out
}

// profileChain jumps to the chains of the rules, or has them itself.
func (r *Renderer) profileChain(p profile) *nft.Chain {
	c := &nft.Chain{Name: p.name}
	if p.ordered() {
		c.Rules = r.tierRules(p.rules)
		return c
	}
	for _, ref := range p.rules {
		c.Rules = append(c.Rules, rule("", nft.Do{Verdict: nft.JumpTo(policyChain(ref))}))
	}
	return c
}

// policyChain names the chain of a policy's rules, or of those of all policies with a podSelector.
func policyChain(ref policy.Ref, part ...string) string {
	of := []string{"policy", ref.Policy.Namespace, ref.Policy.Name}
	if ref.Policy.Namespace == "" {
		of = []string{"cluster-policy", ref.Policy.Name}
	}
	if ref.Subject != "" {
		_, labels, _ := strings.Cut(string(ref.Subject), ": ") // the scope is the namespace
		of = []string{"policies", ref.Policy.Namespace, labels}
	}
	return nft.Name(slices.Concat(of, []string{ref.Direction.String()}, part)...)
}

// partChain names the chain of a part of the rules.
func partChain(ref policy.Ref, i int) string { return policyChain(ref, strconv.Itoa(i)) }

// shortHash distinguishes things whose full text would be too long for a name.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
