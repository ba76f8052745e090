package ruleset

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

// Network is what the ruleset has to know of the pod network between nodes. In its zero value
// another plugin makes that network, and the ruleset has policies only.
type Network struct {
	Pods    []netip.Prefix // of all nodes
	OwnPods []netip.Prefix // of this node
	Own     []netip.Addr   // at which this node is, and its pods' host ports

	Tunnel string // the tunnel device; empty without one
	Port   uint16 // of the tunnel, UDP
	// this node's end of the tunnel; the zero Addr: none, and no packets are the tunnel's
	Local     netip.Addr
	Endpoints []netip.Addr // the peers' ends

	// Masquerade gives packets of this node's pods that leave the pod network the node's address,
	// except packets to the addresses in Direct.
	Masquerade bool
	Direct     []netip.Addr
}

// HostPort is a port of the node that leads to a pod.
type HostPort struct {
	// HostIP is the only address of the node where the port is; the zero Addr: all, and an
	// unspecified one: all of its family.
	HostIP                  netip.Addr
	HostPort, ContainerPort uint16
	Protocol                uint8 // IP protocol number
}

// Where the network's base chains sit. README.md of package nft says why.
const (
	priorityRaw = -300 // before connection tracking
	// priorityDestination is after kube-proxy's Services: a pod's host port must not take what is
	// theirs.
	priorityDestination = -99
	prioritySource      = 99 // before kube-proxy's masquerading
)

// Ports of masqueraded UDP. A tunnel's port is among them only by an unusual configuration.
const firstMasquerade, lastMasquerade = 16384, 65535

var (
	loopback4  = netip.MustParsePrefix("127.0.0.0/8")
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
	multicast4 = netip.MustParsePrefix("224.0.0.0/4")
	multicast6 = netip.MustParsePrefix("ff00::/8")
)

// podsSet and those below name the network's sets.
func podsSet(family string) string      { return nft.Name("network", "pods", family) }
func podsGuard(family string) string    { return nft.Name("network", "guard", family) }
func ownPodsSet(family string) string   { return nft.Name("network", "own-pods", family) }
func endpointsSet(family string) string { return nft.Name("network", "endpoints", family) }
func directSet(family string) string    { return nft.Name("network", "direct", family) }

// hostPortChain names a base chain of host ports. These chains have a version of their own: the
// first version was before kube-proxy's chains.
func hostPortChain(name string) string { return nft.Name(name, "2") }

// ownSet and the maps below hold host ports: those at one address of the node, and those at all of
// them.
func ownSet(family string) string         { return nft.Name("network", "own", family) }
func hostPortMap(family string) string    { return nft.Name("host-ports", "address", family) }
func anyHostPortMap(family string) string { return nft.Name("host-ports", "any", family) }
func hairpinSet(family string) string     { return nft.Name("host-ports", "hairpin", family) }

// Chains that base chains jump to.
var (
	podOrigin     = nft.Name("origin", "pods")        // what comes from pods
	tunnelForward = nft.Name("tunnel", "forward")     // what pods send to the tunnel's port
	tunnelInput   = nft.Name("tunnel", "input")       // what comes to this node's tunnel port
	leaving       = nft.Name("masquerade", "leaving") // what pods send out of the pod network
)

// Enabled reports whether the pod network is ours.
func (n *Network) Enabled() bool { return len(n.Pods) > 0 }

// addTo adds the network's sets and chains to a ruleset.
func (n *Network) addTo(out *nft.Ruleset) {
	if !n.Enabled() {
		return
	}
	for _, f := range families {
		n.addSets(out, f.suffix, f.is4)
		addHostPortSets(out, f.suffix, f.is4)
	}
	chain := func(name string, base nft.Base, rules []nft.Rule) {
		out.AddChain(&nft.Chain{Name: baseChain(name), Base: &base, Rules: rules})
	}
	out.AddChain(&nft.Chain{Name: podOrigin, Rules: originOfPods()})
	chain("origin", nft.Base{Hook: nft.HookPrerouting, Priority: priorityRaw}, n.originRules())
	if n.Tunnel != "" {
		if n.Local.IsValid() {
			chain("untracked", nft.Base{Hook: nft.HookOutput, Priority: priorityRaw},
				[]nft.Rule{n.untrack()})
		}
		out.AddChain(&nft.Chain{Name: tunnelForward, Rules: n.tunnelForwardRules()})
		out.AddChain(&nft.Chain{Name: tunnelInput, Rules: n.tunnelInputRules()})
	}
	hostPorts := func(name string, hook nft.Hook) {
		base := &nft.Base{Type: nft.NATChain, Hook: hook, Priority: priorityDestination}
		out.AddChain(&nft.Chain{Name: hostPortChain(name), Base: base, Rules: hostPortRules()})
	}
	hostPorts("host-ports", nft.HookPrerouting)
	hostPorts("own-host-ports", nft.HookOutput)
	chain("masquerade", nft.Base{Type: nft.NATChain, Hook: nft.HookPostrouting,
		Priority: prioritySource}, n.masqueradeRules())
	if n.Masquerade {
		out.AddChain(&nft.Chain{Name: leaving, Rules: n.leavingRules()})
	}
}

// addSets adds the sets of addresses. Sets of exceptions, from the check of origin or from
// masquerading, are guards: a connection keeps its first address for its life, and peers judge it
// by that.
func (n *Network) addSets(out *nft.Ruleset, family string, is4 bool) {
	src := addrField(true, is4)
	for _, s := range []*nft.Set{
		{Name: podsSet(family), Interval: true, Comment: "pods of all nodes",
			Elements: ranges(n.Pods, is4)},
		{Name: podsGuard(family), Interval: true, Guard: true,
			Comment: "pods of all nodes: nobody else may use their addresses, and nothing to " +
				"them is masqueraded", Elements: ranges(n.Pods, is4)},
		{Name: ownPodsSet(family), Interval: true, Comment: "pods of this node",
			Elements: ranges(n.OwnPods, is4)},
		{Name: ownSet(family), Interval: true, Comment: "this node, where its pods' host ports are",
			Elements: ranges(n.hostPortRanges(), is4)},
		{Name: endpointsSet(family), Comment: "nodes, as the tunnel's packets have them",
			Elements: addresses(n.Endpoints, is4)},
		{Name: directSet(family), Guard: true,
			Comment:  "nodes that pods reach with their own addresses",
			Elements: addresses(n.Direct, is4)},
	} {
		s.Key = []nft.Field{src}
		out.AddSet(s)
	}
}

func addHostPortSets(out *nft.Ruleset, family string, is4 bool) {
	dst := addrField(false, is4)
	out.AddSet(&nft.Set{
		Name: hostPortMap(family), Key: []nft.Field{dst, nft.L4Proto, nft.DstPort}, Targets: dst,
		Comment: "host ports of pods, at one address of the node",
	})
	out.AddSet(&nft.Set{
		Name: anyHostPortMap(family), Key: []nft.Field{nft.L4Proto, nft.DstPort}, Targets: dst,
		Comment: "host ports of pods, at all addresses of the node",
	})
	out.AddSet(&nft.Set{
		Name: hairpinSet(family), Key: []nft.Field{addrField(true, is4), dst},
		Comment: "pods that reach themselves by way of a host port",
	})
}

// originOfPods drops packets whose source isn't the pod's. A pod's link-local addresses can't be
// checked, as all of them are on its link. A pod that uses many would fill the node's neighbour
// table by the node's answers. So they are dropped too: a pod doesn't need them, as it reaches the
// node by the MAC alone.
func originOfPods() []nft.Rule {
	return []nft.Rule{
		rule("a pod, but not its address", nft.MatchNoRouteBack{}, nft.Count{}, do(nft.Drop)),
		rule("a pod, but not an address that can be checked",
			nft.MatchPrefix{Field: nft.SrcAddr6, Prefix: linkLocal6}, nft.Count{}, do(nft.Drop)),
		rule("a pod to the node's loopback",
			nft.MatchPrefix{Field: nft.DstAddr4, Prefix: loopback4}, nft.Count{}, do(nft.Drop)),
		rule("", do(nft.Accept)),
	}
}

// originRules drop packets with a false source. Most packets meet few of these rules: what comes
// out of the tunnel three, and the tunnel's own two.
func (n *Network) originRules() []nft.Rule {
	rules := []nft.Rule{
		rule("pods", nft.MatchIface{Field: nft.InIface, Name: vethPattern},
			nft.Do{Verdict: nft.JumpTo(podOrigin)}),
	}
	if n.Local.IsValid() {
		rules = append(rules, rule("tunnel packets need no tracking",
			append(n.fromPeer(), nft.NoTrack{}, do(nft.Accept))...))
	}
	if n.Tunnel != "" {
		rules = append(rules, rule("from a pod elsewhere, by its way back",
			nft.MatchIface{Field: nft.InIface, Name: n.Tunnel}, nft.MatchRouteBack{},
			do(nft.Accept)))
	}
	for _, f := range families {
		rules = append(rules, rule("a pod's address, but not from there",
			nft.InSet{Fields: []nft.Field{addrField(true, f.is4)}, Set: podsGuard(f.suffix)},
			nft.MatchNoRouteBack{}, nft.Count{}, do(nft.Drop)))
	}
	return rules
}

// fromPeer matches the tunnel's packets from a peer to this node.
func (n *Network) fromPeer() []nft.Statement {
	family := familySuffix(n.Local)
	return []nft.Statement{
		n.toTunnel(), // first what most other packets fail at
		nft.MatchAddr{Field: addrField(false, n.Local.Is4()), Addr: n.Local},
		nft.InSet{Fields: []nft.Field{addrField(true, n.Local.Is4())}, Set: endpointsSet(family)},
	}
}

// untrack matches the tunnel's packets from this node to a peer.
func (n *Network) untrack() nft.Rule {
	is4 := n.Local.Is4()
	return rule("tunnel packets need no tracking",
		n.toTunnel(),
		nft.MatchAddr{Field: addrField(true, is4), Addr: n.Local},
		nft.InSet{Fields: []nft.Field{addrField(false, is4)},
			Set: endpointsSet(familySuffix(n.Local))},
		nft.NoTrack{})
}

// tunnelForwardRules keep pods from posing as nodes. Masquerading gives a pod's packets to another
// node the address of its own node, from which the other node takes tunnel packets. Their
// destination can be an address of any node, also of an unknown one. So pods may send to the
// tunnel's port only within the pod network.
func (n *Network) tunnelForwardRules() []nft.Rule {
	var rules []nft.Rule
	for _, f := range families {
		rules = append(rules, rule("between pods it is theirs to use",
			nft.InSet{Fields: []nft.Field{addrField(false, f.is4)}, Set: podsSet(f.suffix)},
			do(nft.Return)))
	}
	return append(rules, rule("a pod to a tunnel", nft.Count{}, do(nft.Drop)))
}

// tunnelInputRules accept the tunnel's packets from peers alone: here those that were tracked all
// the same.
func (n *Network) tunnelInputRules() []nft.Rule {
	rules := []nft.Rule{
		rule("a pod to a tunnel", nft.MatchIface{Field: nft.InIface, Name: vethPattern},
			nft.Count{}, do(nft.Drop)),
	}
	if n.Local.IsValid() {
		rules = append(rules,
			rule("tunnel packets of peers", append(n.fromPeer(), do(nft.Accept))...))
	}
	return append(rules, rule("tunnel packets of others", nft.Count{}, do(nft.Drop)))
}

// toForwarded is the egress chain's part of that, behind established connections: a pod may answer
// a peer that sends from the tunnel's port.
func (n *Network) toForwarded() []nft.Rule {
	if !n.Enabled() || n.Tunnel == "" {
		return nil
	}
	return []nft.Rule{rule("", n.toTunnel(), nft.MatchIface{Field: nft.InIface, Name: vethPattern},
		nft.Do{Verdict: nft.JumpTo(tunnelForward)})}
}

// beyondTunnel accepts, behind passing, what came out of the tunnel, which no pod of this node
// sent, and what goes into it, which none will get.
func (n *Network) beyondTunnel(d policy.Direction) []nft.Rule {
	if !n.Enabled() || n.Tunnel == "" {
		return nil
	}
	what := "from another node, so from no pod of this one"
	if d == policy.Ingress {
		what = "to another node, so to no pod of this one"
	}
	return []nft.Rule{rule(what, nft.MatchIface{Field: linkField(d), Name: n.Tunnel},
		do(nft.Accept))}
}

// fromTunnel is the first rule of the input chain, as most packets that come in are the tunnel's.
// It asks whether they are untracked, as the chain origin leaves them: what isn't tracked is part
// of no connection, so of none that is cut. All else to the tunnel's port meets tunnelInput.
func (n *Network) fromTunnel() []nft.Rule {
	if !n.Enabled() || n.Tunnel == "" || !n.Local.IsValid() {
		return nil
	}
	return []nft.Rule{rule("tunnel packets of peers", slices.Concat(
		[]nft.Statement{nft.MatchCT{State: nft.CTUntracked}}, n.fromPeer(),
		[]nft.Statement{nft.MatchIface{Field: nft.InIface, Name: vethPattern, Others: true},
			do(nft.Accept)})...)}
}

// toInput is the input chain's part of the tunnel's check, behind the rule for cut connections.
func (n *Network) toInput() []nft.Rule {
	if !n.Enabled() || n.Tunnel == "" {
		return nil
	}
	return []nft.Rule{rule("", n.toTunnel(), nft.Do{Verdict: nft.JumpTo(tunnelInput)})}
}

func (n *Network) toTunnel() nft.MatchPort {
	return nft.MatchPort{Proto: policy.ProtocolUDP, First: n.Port, Last: n.Port}
}

// hostPortRanges are the addresses with host ports: the node's own, and those by which only the
// node itself can reach it.
func (n *Network) hostPortRanges() []netip.Prefix {
	all := []netip.Prefix{loopback4}
	for _, a := range n.Own {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return all
}

// hostPortRules lead host ports to pods. An address of the node may have moved elsewhere meanwhile,
// so it also has to be local.
func hostPortRules() []nft.Rule {
	var rules []nft.Rule
	for _, f := range families {
		dst := addrField(false, f.is4)
		own := nft.InSet{Fields: []nft.Field{dst}, Set: ownSet(f.suffix)}
		rules = append(rules,
			rule("", own, nft.MatchLocalDst{},
				nft.DNAT{Fields: []nft.Field{dst, nft.L4Proto, nft.DstPort},
					Map: hostPortMap(f.suffix)}),
			rule("", own, nft.MatchLocalDst{},
				nft.DNAT{Fields: []nft.Field{nft.L4Proto, nft.DstPort},
					Map: anyHostPortMap(f.suffix)}),
		)
	}
	return rules
}

// addHostPorts adds the elements of a pod's host ports. Of several for one packet, the one for
// fewer addresses counts: one address of the node before all of its family, by the order of the
// rules, and these before all of both families.
func (n *Network) addHostPorts(elements map[dispatchKey]nft.Verdict, pod []netip.Addr,
	ports []HostPort) {
	if !n.Enabled() {
		return
	}
	bothFamiliesFirst := func(a, b HostPort) int { return a.HostIP.Compare(b.HostIP) }
	for _, port := range slices.SortedStableFunc(slices.Values(ports), bothFamiliesFirst) {
		for _, addr := range pod {
			if port.HostIP.IsValid() && port.HostIP.Is4() != addr.Is4() {
				continue
			}
			proto, family := port.Protocol, familySuffix(addr)
			key := dispatchKey{hostPortMap(family),
				nft.AddrProtoPortElement(port.HostIP, proto, port.HostPort)}
			if !port.HostIP.IsValid() || port.HostIP.IsUnspecified() {
				key = dispatchKey{anyHostPortMap(family),
					nft.ProtoPortElement(proto, port.HostPort)}
			}
			elements[key] = nft.NATTarget(netip.AddrPortFrom(addr, port.ContainerPort))
			elements[dispatchKey{hairpinSet(family),
				nft.AddrPairElement(addr, addr)}] = nft.Verdict{}
		}
	}
}

// masqueradeRules give the node's address to packets whose answers would otherwise not come back to
// the node.
func (n *Network) masqueradeRules() []nft.Rule {
	toPod := nft.MatchIface{Field: nft.OutIface, Name: vethPattern}
	rules := []nft.Rule{
		rule("a host port by way of loopback", toPod,
			nft.MatchPrefix{Field: nft.SrcAddr4, Prefix: loopback4},
			nft.Masquerade{FullyRandom: true}),
	}
	for _, f := range families {
		rules = append(rules, rule("a pod's own host port",
			nft.InSet{Fields: []nft.Field{addrField(true, f.is4), addrField(false, f.is4)},
				Set: hairpinSet(f.suffix)}, nft.Masquerade{FullyRandom: true}))
	}
	if n.Tunnel != "" {
		tunnel := nft.MatchIface{Field: nft.OutIface, Name: n.Tunnel}
		for _, f := range families {
			rules = append(rules,
				rule("", tunnel, nft.InSet{Fields: []nft.Field{addrField(true, f.is4)},
					Set: podsGuard(f.suffix)}, do(nft.Accept)))
		}
		rules = append(rules,
			rule("the node to a pod elsewhere, so that the answer comes through the tunnel", tunnel,
				nft.Masquerade{FullyRandom: true}))
	}
	if !n.Masquerade {
		return rules
	}
	for _, f := range families {
		rules = append(rules,
			rule("", nft.InSet{Fields: []nft.Field{addrField(true, f.is4)},
				Set: ownPodsSet(f.suffix)}, nft.Do{Verdict: nft.JumpTo(leaving)}))
	}
	return rules
}

// leavingRules masquerade what a pod of this node sends out of the network.
func (n *Network) leavingRules() []nft.Rule {
	var rules []nft.Rule
	for _, f := range families {
		dst := []nft.Field{addrField(false, f.is4)}
		rules = append(rules,
			rule("to pods", nft.InSet{Fields: dst, Set: podsGuard(f.suffix)}, do(nft.Accept)),
			rule("to nodes that know the way back",
				nft.InSet{Fields: dst, Set: directSet(f.suffix)}, do(nft.Accept)))
	}
	return append(rules,
		rule("multicast", nft.MatchPrefix{Field: nft.DstAddr4, Prefix: multicast4}, do(nft.Accept)),
		rule("multicast", nft.MatchPrefix{Field: nft.DstAddr6, Prefix: multicast6}, do(nft.Accept)),
		rule("no port that could be a tunnel's", nft.MatchProto{Proto: policy.ProtocolUDP},
			nft.Masquerade{First: firstMasquerade, Last: lastMasquerade, FullyRandom: true}),
		rule("", nft.Masquerade{FullyRandom: true}))
}

func familySuffix(a netip.Addr) string {
	if a.Is4() {
		return families[0].suffix
	}
	return families[1].suffix
}

// addresses returns the elements of a set of addresses of one family.
func addresses(in []netip.Addr, is4 bool) map[nft.Element]nft.Verdict {
	out := map[nft.Element]nft.Verdict{}
	for _, a := range in {
		if a.Is4() == is4 {
			out[nft.AddrElement(a)] = nft.Verdict{}
		}
	}
	return out
}
