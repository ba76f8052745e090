package ruleset

import (
	"slices"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

// IPVS, as kube-proxy uses it, has Services' addresses on a link of the node. So packets to them
// come to the hook input, and so do those to node ports. There, at priority 99, IPVS takes what is
// a Service's, puts a backend's address into it, and sends it on by the hook output: it never meets
// forward. So where IPVS may be at work
//
//   - nothing is judged on input before IPVS but what it must not get: packets of cut connections,
//     the tunnel's, and those of no pod that is programmed. Egress is judged after it: what comes
//     so far is for the node itself, a backend of the host's network included.
//   - what goes out, and isn't the node's own, is judged on output: both egress and ingress, by the
//     pod behind the Service. No veth of a sender is known there. The chain origin has checked that
//     the sender's address is its own.
//
// Answers are forwarded, and pass as those of an allowed connection. IPVS puts the Service's
// address into them after forward is done.

// afterIPVS is the priority on input where IPVS has taken what it takes (NF_IP_PRI_NAT_SRC-1).
const afterIPVS = 100

// addIPVS adds the base chains for input and output. first are the rules before IPVS, and later
// those before a packet for the node itself is judged.
func addIPVS(out *nft.Ruleset, first, later []nft.Rule) {
	addBase(out, "input", nft.HookInput, -1, append(first, programmed()...))
	addBase(out, "ipvs-input", nft.HookInput, afterIPVS, append(later, judge(policy.Egress)...))
	own := []nft.Rule{resets(), rule("the node's own packets", nft.MatchLocalSrc{},
		do(nft.Accept))}
	for i, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		addBase(out, "ipvs-"+d.String(), nft.HookOutput, i-2,
			slices.Concat(passing(d), own, judgeOutput(d)))
	}
}

// programmed lets pods' packets pass that come from where the pod is, to be judged later. The pairs
// of a pod's address and itself say where that is.
func programmed() []nft.Rule {
	var out []nft.Rule
	const what = "of a pod, which is judged later"
	for _, f := range families {
		src := addrField(true, f.is4)
		out = append(out, rule(what, nft.InSet{Fields: []nft.Field{src, nft.InIface, src},
			Set: vethEnds(f.suffix)}, do(nft.Accept)))
	}
	out = append(out, drop("a pod that isn't programmed, or not its address",
		nft.MatchIface{Field: nft.InIface, Name: vethPattern}))
	for _, f := range families {
		src := addrField(true, f.is4)
		out = append(out, rule(what, nft.InSet{Fields: []nft.Field{src, src},
			Set: addrEnds(f.suffix)}, do(nft.Accept)))
	}
	return append(out, outOfRanges(policy.Egress)...)
}

// judgeOutput is judge by addresses alone. A pod that is known, but has no entry in the maps, as
// the kernel refused it, carries nothing; nor does a veth of no pod.
func judgeOutput(d policy.Direction) []nft.Rule {
	out := byAddress(d)
	for _, f := range families {
		out = append(out, drop("a pod that isn't programmed",
			nft.InSet{Fields: []nft.Field{podField(d, f.is4)}, Set: sendersGuard(f.suffix)}))
	}
	if d == policy.Ingress {
		out = append(out, drop("a pod that isn't programmed",
			nft.MatchIface{Field: nft.OutIface, Name: vethPattern}))
	}
	return append(out, outOfRanges(d)...)
}
