package ruleset

import (
	"net/netip"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

// The kernel relates an ICMP error to a connection by the packet that it quotes, from any sender.
// So an error from a pod of this node passes as one only if the pod is an end of that connection;
// otherwise it is judged like any packet of that pod. Other senders may be routers on the way.
//
// A rule can't compare two fields of a packet with each other. So a set of pairs says which values
// are the same, or of the same pod.

// Chains that base chains send errors to. Packets that return are judged.
var (
	// errorsByEnds accepts those by ends that are pods of this node
	errorsByEnds = nft.Name("errors", "by-ends")
	// errorsToPods accepts those by senders that are no pods of this node
	errorsToPods  = nft.Name("errors", "to-pods")
	errorProtocol = [...]uint8{policy.ProtocolICMP, policy.ProtocolICMPv6}
)

// vethEnds and addrEnds are sets of pairs of pods' addresses: the sender of an error, and the end
// of a connection that the pod is. As in the dispatch maps, our own pods are known by address and
// veth.
func vethEnds(family string) string { return nft.Name("ends", "veth", family) }
func addrEnds(family string) string { return nft.Name("ends", "address", family) }

// sendersGuard holds the pods that are known by their address alone.
func sendersGuard(family string) string { return nft.Name("ends", "guard", family) }

// endFields are the fields that hold a connection's two ends.
func endFields(is4 bool) []nft.Field {
	if is4 {
		return []nft.Field{nft.OriginalSrc4, nft.ReplySrc4}
	}
	return []nft.Field{nft.OriginalSrc6, nft.ReplySrc6}
}

// errorRules are those of a base chain.
func errorRules(d policy.Direction) []nft.Rule {
	to := errorsToPods
	if d == policy.Egress {
		to = errorsByEnds
	}
	var out []nft.Rule
	for _, protocol := range errorProtocol {
		out = append(out, rule("errors about them", nft.MatchCT{State: nft.CTRelated},
			nft.MatchProto{Proto: protocol}, nft.Do{Verdict: nft.JumpTo(to)}))
	}
	return out
}

// addErrors adds the chains for errors and their sets.
func addErrors(out *nft.Ruleset) {
	var byVeth, byAddress, known []nft.Rule
	for _, f := range families {
		src, ends := addrField(true, f.is4), endFields(f.is4)
		out.AddSet(&nft.Set{
			Name: vethEnds(f.suffix), Key: []nft.Field{src, nft.InIface, ends[0]},
			Comment: "pods of this node, and themselves as ends of connections",
		})
		out.AddSet(&nft.Set{
			Name: addrEnds(f.suffix), Key: []nft.Field{src, ends[0]},
			Comment: "pods of this node that another CNI plugin wired, and themselves as ends of " +
				"connections",
		})
		out.AddSet(&nft.Set{
			Name: sendersGuard(f.suffix), Key: []nft.Field{src}, Guard: true,
			Comment: "pods of this node that another CNI plugin wired: no routers",
		})
		for _, end := range ends {
			byVeth = append(byVeth,
				rule("by an end", nft.InSet{Fields: []nft.Field{src, nft.InIface, end},
					Set: vethEnds(f.suffix)}, do(nft.Accept)))
			byAddress = append(byAddress, rule("by an end",
				nft.InSet{Fields: []nft.Field{src, end}, Set: addrEnds(f.suffix)}, do(nft.Accept)))
		}
		known = append(known, rule("by a pod that is no end",
			nft.InSet{Fields: []nft.Field{src}, Set: sendersGuard(f.suffix)}, do(nft.Return)))
	}
	pod := rule("by a pod that is no end", nft.MatchIface{Field: nft.InIface, Name: vethPattern},
		do(nft.Return))
	out.AddChain(&nft.Chain{Name: errorsByEnds, Rules: append(append(byVeth, pod), byAddress...)})
	toPods := append([]nft.Rule{rule("", nft.Do{Verdict: nft.JumpTo(errorsByEnds)}), pod}, known...)
	out.AddChain(&nft.Chain{Name: errorsToPods,
		Rules: append(toPods, rule("by a router, or an end elsewhere", do(nft.Accept)))})
}

// addEnds adds the elements that allow a pod's errors about its own connections.
func (cfg *Config) addEnds(elements map[dispatchKey]nft.Verdict, veth string,
	addresses []netip.Addr) {
	for _, a := range addresses {
		family := familySuffix(a)
		if cfg.knownByAddress(veth) {
			elements[dispatchKey{sendersGuard(family), nft.AddrElement(a)}] = nft.Verdict{}
		}
		for _, end := range addresses {
			if end.Is4() != a.Is4() {
				continue
			}
			if veth != "" {
				elements[dispatchKey{vethEnds(family),
					nft.AddrIfacePairElement(a, veth, end)}] = nft.Verdict{}
			}
			if cfg.knownByAddress(veth) {
				elements[dispatchKey{addrEnds(family), nft.AddrPairElement(a, end)}] = nft.Verdict{}
			}
		}
	}
}

// knownByAddress reports whether a pod is known by its address alone, too: there is no known veth
// of a pod that another CNI plugin wired, and none on output.
func (cfg *Config) knownByAddress(veth string) bool { return veth == "" || cfg.IPVS }
