package ruleset

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

// shape is the version of the base chains. It is part of their names, so that the table stores it,
// and so that another version's chains are added before these are removed: drops add up, so there
// is no gap.
const shape = 1

// vethPattern matches the host ends of our own pods. No other link of a node may have such a name;
// the tunnel device doesn't.
const vethPattern = names.PodLinks

// loopback is the interface of all packets from the node to itself, and of no others. Their source
// may be an address in a pod's status, or of a guarded range: a bridge of the node has an address
// of its pods' range.
const loopback = "lo"

// Config is what the ruleset depends on besides policies.
type Config struct {
	// PodRanges are the addresses of this node's pods where other CNI plugins wire them. Packets
	// from and to unknown pods there are dropped. Pods behind our own veths need no range.
	PodRanges []netip.Prefix
	// AllowPodToNode exempts traffic from a pod to its own node from egress.
	AllowPodToNode bool
	// IPVS says that IPVS may take packets on input, and send them on from output: see ipvs.go.
	IPVS bool
	// Network is the pod network, where it is ours.
	Network Network
	// LogGroup is the NFLOG group that samples of denied packets go to.
	LogGroup uint16
	// LogPerSecond bounds the samples of one pod, both directions together; 0: none.
	LogPerSecond uint64
	// CutLabel is the bit, 1 to 127, of the labels of cut connections; 0: 127.
	CutLabel uint8
}

// families are the suffixes of names that exist once for each IP version.
var families = [...]struct {
	suffix string
	is4    bool
}{{"v4", true}, {"v6", false}}

// addrField returns the field that holds the address of a packet's source or destination.
func addrField(source, is4 bool) nft.Field {
	switch {
	case source && is4:
		return nft.SrcAddr4
	case source:
		return nft.SrcAddr6
	case is4:
		return nft.DstAddr4
	}
	return nft.DstAddr6
}

// podField returns the field that holds the pod's own address in a direction.
func podField(d policy.Direction, is4 bool) nft.Field { return addrField(d == policy.Egress, is4) }

// peerField returns the field that holds the other end's address.
func peerField(d policy.Direction, is4 bool) nft.Field {
	return addrField(d == policy.Ingress, is4)
}

// linkField returns the field that holds the link on the pod's side: its veth, where it is ours.
func linkField(d policy.Direction) nft.Field {
	if d == policy.Egress {
		return nft.InIface
	}
	return nft.OutIface
}

// dispatchMap names the dispatch maps: by address and veth for our own pods, by address alone for
// pods that others wired.
func dispatchMap(d policy.Direction, by, family string) string {
	return nft.Name("dispatch", d.String(), by, family)
}
func vethMap(d policy.Direction, family string) string { return dispatchMap(d, "veth", family) }
func addrMap(d policy.Direction, family string) string { return dispatchMap(d, "address", family) }
func rangeSet(family string) string                    { return nft.Name("pod-ranges", family) }

// baseChain names a base chain of the current shape.
func baseChain(name string) string { return nft.Name(name, fmt.Sprint(shape)) }

// addBase adds a filter chain of the current shape.
func addBase(out *nft.Ruleset, name string, hook nft.Hook, priority int, rules []nft.Rule) {
	out.AddChain(&nft.Chain{Name: baseChain(name),
		Base: &nft.Base{Hook: hook, Priority: priority}, Rules: rules})
}

// base returns the part of the ruleset that doesn't depend on any pod: base chains, empty dispatch
// maps, the guarded ranges.
func (cfg *Config) base() *nft.Ruleset {
	out := nft.NewRuleset()
	for _, f := range families {
		for _, d := range policy.Directions {
			out.AddSet(&nft.Set{
				Name: vethMap(d, f.suffix), Key: []nft.Field{podField(d, f.is4), linkField(d)},
				Verdicts: true,
				Comment:  "pods of this node, " + d.String(),
			})
			out.AddSet(&nft.Set{
				Name: addrMap(d, f.suffix), Key: []nft.Field{podField(d, f.is4)}, Verdicts: true,
				Comment: "pods of this node that another CNI plugin wired, " + d.String(),
			})
		}
		out.AddSet(&nft.Set{
			Name: rangeSet(f.suffix), Key: []nft.Field{addrField(true, f.is4)},
			Interval: true, Guard: true,
			Comment: "addresses of pods that another CNI plugin wires: " +
				"dropped where not dispatched",
			Elements: ranges(cfg.PodRanges, f.is4),
		})
	}
	add := func(name string, hook nft.Hook, priority int, d policy.Direction, first ...nft.Rule) {
		rules := slices.Concat(first, judge(d))
		if hook == nft.HookForward && len(cfg.PodRanges) > 0 {
			rules = append(rules, linkScope(d)...)
		}
		addBase(out, name, hook, priority, rules)
	}
	add("egress", nft.HookForward, -2, policy.Egress,
		slices.Concat([]nft.Rule{cfg.cutting()}, passing(policy.Egress),
			cfg.Network.beyondTunnel(policy.Egress), cfg.Network.toForwarded())...)
	add("ingress", nft.HookForward, -1, policy.Ingress,
		slices.Concat(passing(policy.Ingress), cfg.Network.beyondTunnel(policy.Ingress))...)
	toItself := rule("the node to itself", nft.MatchIface{Field: nft.InIface, Name: loopback},
		do(nft.Accept))
	input := slices.Concat(cfg.Network.fromTunnel(), []nft.Rule{cfg.cutting()},
		cfg.Network.toInput(), passing(policy.Egress), []nft.Rule{toItself})
	if cfg.IPVS {
		addIPVS(out, input, append(passing(policy.Egress), toItself))
	} else {
		add("input", nft.HookInput, -1, policy.Egress, input...)
	}
	cfg.addCut(out)
	addErrors(out)
	cfg.Network.addTo(out)
	return out
}

// ranges returns the elements of an interval set, those of one family, merged: the kernel refuses
// overlapping ones.
func ranges(prefixes []netip.Prefix, is4 bool) map[nft.Element]nft.Verdict {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		if p.Addr().Is4() == is4 {
			b.AddPrefix(p)
		}
	}
	out := map[nft.Element]nft.Verdict{}
	if set, err := b.IPSet(); err == nil {
		for _, r := range set.Ranges() {
			out[nft.RangeElement(r.From(), r.To())] = nft.Verdict{}
		}
	}
	return out
}

func rule(comment string, statements ...nft.Statement) nft.Rule {
	return nft.Rule{Statements: statements, Comment: comment}
}

func do(kind nft.VerdictKind) nft.Do { return nft.Do{Verdict: nft.Verdict{Kind: kind}} }

// passing lists the rules that accept packets first in a base chain.
func passing(d policy.Direction) []nft.Rule {
	return slices.Concat(
		[]nft.Rule{rule("packets of allowed connections", nft.MatchCT{State: nft.CTEstablished},
			do(nft.Accept))},
		errorRules(d),
		[]nft.Rule{rule("neighbour discovery, which is never routed", nft.MatchND{},
			do(nft.Accept))},
	)
}

// judge dispatches to the pods' chains. A packet of a pod of this node is dropped if the pod's
// chain doesn't decide, or if it has none.
func judge(d policy.Direction) []nft.Rule {
	var out []nft.Rule
	for _, f := range families {
		out = append(out, rule("", nft.Dispatch{Fields: []nft.Field{podField(d, f.is4),
			linkField(d)}, Map: vethMap(d, f.suffix)}))
	}
	out = append(out, drop("a pod that isn't programmed, or not its address",
		nft.MatchIface{Field: linkField(d), Name: vethPattern}))
	return append(append(out, byAddress(d)...), outOfRanges(d)...)
}

// byAddress dispatches to the chains of pods that are known by their address alone.
func byAddress(d policy.Direction) []nft.Rule {
	var out []nft.Rule
	for _, f := range families {
		out = append(out, rule("", nft.Dispatch{Fields: []nft.Field{podField(d, f.is4)},
			Map: addrMap(d, f.suffix)}))
	}
	return out
}

// outOfRanges drops what is of a guarded range, and no pod's that is known.
func outOfRanges(d policy.Direction) []nft.Rule {
	var out []nft.Rule
	for _, f := range families {
		out = append(out, drop("a pod that isn't programmed",
			nft.InSet{Fields: []nft.Field{podField(d, f.is4)}, Set: rangeSet(f.suffix)}))
	}
	return out
}

// drop drops, and counts, what matches.
func drop(what string, match nft.Statement) nft.Rule {
	return rule(what, match, nft.Count{}, do(nft.Drop))
}
