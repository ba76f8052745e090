package verify

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/nft/readback"
	"github.com/sluice-net/sluice/policy"
)

// uplink and bridge are interfaces that no rule names: the way out, and one
// that pods share which other plugins wired.
const uplink, bridge = "verify-up", "verify-br"

// nobody is a veth of no pod.
const nobody = vethPrefix + "-nobody"

// plan finds the classes of addresses, and what to compare.
func (p *Pass) plan() {
	p.group()
	p.nameInterfaces()
	for _, is4 := range []bool{true, false} {
		groups := p.of(is4)
		for _, at := range p.placesOf(is4) {
			p.work = append(p.work,
				func() error { return p.outward(at, groups) },
				func() error { return p.inward(at, groups) },
				func() error { return p.toNode(at, groups) },
				func() error { return p.posing(at, groups) },
				func() error { return p.toLocals(at) },
				func() error { return p.neighbours(at.face(), at.address) },
			)
		}
		p.work = append(p.work,
			func() error { return p.unprogrammed(is4, groups) },
			func() error { return p.neighbours(uplink, stranger(is4)) },
			func() error { return p.neighbours(nobody, stranger(is4)) },
			func() error { return p.strangersForward(is4, groups) },
			func() error { return p.strangersInput(is4, groups) },
			func() error { return p.origins(p.pairs(groups, readback.Prerouting)) },
			func() error { return p.fromNode(p.pairs(groups, readback.Output)) },
			func() error { return p.leaving(p.pairs(groups, readback.Postrouting)) },
		)
	}
}

func (p *Pass) of(is4 bool) []netip.Addr {
	if is4 {
		return p.groups[0]
	}
	return p.groups[1]
}

// group picks one address of each way in which addresses are treated, among
// all that anybody names and their neighbours.
func (p *Pass) group() {
	type key struct {
		kernel int32
		view   policy.View
		node   string
		local  netip.Addr
	}
	local := map[netip.Addr]bool{}
	for l := range p.x.links {
		local[l.address] = true
	}
	for a := range p.x.alone {
		local[a] = true
	}
	for _, a := range p.program.Dispatched() {
		local[a] = true
	}
	seen := map[key]bool{}
	add := func(a netip.Addr) {
		if !a.IsValid() {
			return
		}
		k := key{kernel: p.kernel.Signature(a), view: p.x.meaning.View(a), node: p.x.node.signature(a)}
		if local[a] {
			k.local = a
		}
		if seen[k] {
			return
		}
		seen[k] = true
		i := 1
		if a.Is4() {
			i = 0
		}
		p.groups[i] = append(p.groups[i], a)
	}
	for _, list := range [][]netip.Addr{p.program.Addresses(), p.x.meaning.Addresses(), p.x.node.addresses()} {
		for _, a := range list {
			add(a)
			add(a.Prev())
			add(a.Next())
		}
	}
}

// nameInterfaces finds the interfaces that rules tell apart.
func (p *Pass) nameInterfaces() {
	p.names = []string{uplink}
	programmed := map[string]bool{}
	for l := range p.x.links {
		programmed[l.veth] = true
	}
	veths := map[string]bool{nobody: true}
	for _, a := range p.x.meaning.Attachments() {
		if isVeth(a.Interface) && !programmed[a.Interface] {
			veths[a.Interface] = true
		}
	}
	for _, name := range p.program.Interfaces(readback.Prerouting, readback.Input, readback.Forward, readback.Output, readback.Postrouting) {
		switch {
		case name == "" || programmed[name] || strings.HasPrefix(vethPrefix, name):
		case isVeth(name):
			veths[name] = true
		default:
			p.names = append(p.names, name)
		}
	}
	p.veths = slices.Sorted(maps.Keys(veths))
}

// place is where a pod of this node is: one of its addresses, and its veth.
type place struct {
	*policy.Attachment
	address netip.Addr
}

// face is the interface by which a pod's packets come and go.
func (at place) face() string {
	if at.Interface == "" {
		return bridge
	}
	return at.Interface
}

// placesOf lists the places of a family. Pods with the same policies follow
// each other: what is remembered of one helps the next.
func (p *Pass) placesOf(is4 bool) []place {
	var out []place
	for _, a := range p.x.meaning.Attachments() {
		for _, address := range a.Addresses {
			if a.Known && address.Is4() == is4 {
				out = append(out, place{&a, address})
			}
		}
	}
	profile := func(at place) string {
		return fmt.Sprint(p.x.meaning.Isolating(at.Pod, policy.Ingress), p.x.meaning.Isolating(at.Pod, policy.Egress))
	}
	keys := map[string]string{}
	for _, at := range out {
		keys[at.ID] = profile(at)
	}
	slices.SortStableFunc(out, func(a, b place) int { return strings.Compare(keys[a.ID], keys[b.ID]) })
	return out
}

// kinds are the variations of a class that the policies of a pod tell apart.
func (p *Pass) kinds(c readback.Class) []readback.Class {
	c.Hops, c.RouteBack, c.State = 64, true, readback.New
	out := []readback.Class{c}
	vary := func(f func(v *readback.Class)) {
		v := c
		f(&v)
		out = append(out, v)
	}
	vary(func(v *readback.Class) { v.NoSYN = true })
	vary(func(v *readback.Class) { v.DNATed = true })
	vary(func(v *readback.Class) { v.State, v.NoSYN = readback.Established, true })
	vary(func(v *readback.Class) {
		v.State, v.NoSYN, v.Label = readback.Established, true, readback.LabelWith(p.x.node.CutLabel)
	})
	for _, state := range []readback.State{readback.Related, readback.Invalid, readback.Untracked} {
		for _, noSYN := range []bool{false, true} {
			vary(func(v *readback.Class) { v.State, v.NoSYN = state, noSYN })
		}
	}
	return out
}

func (p *Pass) compareKinds(hook readback.Hook, c readback.Class) error {
	for _, v := range p.kinds(c) {
		if err := p.compare(hook, v); err != nil {
			return err
		}
	}
	return nil
}

// newOnly compares a new connection alone.
func (p *Pass) newOnly(hook readback.Hook, c readback.Class) error {
	c.Hops, c.RouteBack, c.State = 64, true, readback.New
	return p.compare(hook, c)
}

// outward: what a pod sends to everybody who isn't on this node.
func (p *Pass) outward(at place, groups []netip.Addr) error {
	for _, peer := range groups {
		for i, name := range p.names {
			c := readback.Class{In: at.face(), Out: name, Src: at.address, Dst: peer}
			if i > 0 {
				if err := p.newOnly(readback.Forward, c); err != nil {
					return err
				}
			} else if err := p.compareKinds(readback.Forward, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// inward: what others send to a pod.
func (p *Pass) inward(at place, groups []netip.Addr) error {
	for _, peer := range groups {
		for i, name := range p.names {
			c := readback.Class{In: name, Out: at.face(), Src: peer, Dst: at.address}
			if i > 0 {
				if err := p.newOnly(readback.Forward, c); err != nil {
					return err
				}
			} else if err := p.compareKinds(readback.Forward, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// toNode: what a pod sends to its own node.
func (p *Pass) toNode(at place, groups []netip.Addr) error {
	own := p.x.meaning.NodeAddresses()
	for _, peer := range groups {
		c := readback.Class{In: at.face(), Src: at.address, Dst: peer, DstLocal: true}
		if slices.Contains(own, peer) || peer == stranger(peer.Is4()) {
			if err := p.compareKinds(readback.Input, c); err != nil {
				return err
			}
		} else if err := p.newOnly(readback.Input, c); err != nil {
			return err
		}
		c.DstLocal = false // multicast
		if err := p.newOnly(readback.Input, c); err != nil {
			return err
		}
	}
	return nil
}

// posing: a pod with an address that isn't its own, and what is led to it.
func (p *Pass) posing(at place, groups []netip.Addr) error {
	other := stranger(at.address.Is4())
	for _, a := range groups {
		for hook, c := range map[readback.Hook][]readback.Class{
			readback.Forward: {{In: at.face(), Out: uplink, Src: a, Dst: other}, {In: uplink, Out: at.face(), Src: other, Dst: a}},
			readback.Input:   {{In: at.face(), Src: a, Dst: other, DstLocal: true}},
		} {
			for _, class := range c {
				if err := p.compareKinds(hook, class); err != nil {
					return err
				}
			}
		}
		for _, end := range p.nodeEnds(other.Is4())[1:] {
			if err := p.newOnly(readback.Forward, readback.Class{In: at.face(), Out: uplink, Src: a, Dst: end}); err != nil {
				return err
			}
			if err := p.newOnly(readback.Input, readback.Class{In: at.face(), Src: a, Dst: end, DstLocal: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// toLocals: the whole way between two pods of this node. Of pods that are
// there, all; each is the sender once.
func (p *Pass) toLocals(at place) error {
	for _, to := range p.placesOf(at.address.Is4()) {
		if err := p.compareKinds(readback.Forward, readback.Class{In: at.face(), Out: to.face(), Src: at.address, Dst: to.address}); err != nil {
			return err
		}
	}
	return nil
}

// neighbours: neighbour discovery and what looks like it.
func (p *Pass) neighbours(face string, address netip.Addr) error {
	if address.Is4() {
		return nil
	}
	const before, after, last = 132, 138, 255
	other := stranger(false)
	for kind := uint8(before); kind <= after; kind++ {
		for _, hops := range []uint8{last - 1, last} {
			c := readback.Class{State: readback.Untracked, Type: kind, Hops: hops, RouteBack: true}
			c.In, c.Out, c.Src, c.Dst = face, uplink, address, other
			if err := p.compare(readback.Forward, c); err != nil {
				return err
			}
			c.In, c.Out, c.Src, c.Dst = uplink, face, other, address
			if err := p.compare(readback.Forward, c); err != nil {
				return err
			}
			c.In, c.Out, c.Src, c.Dst = face, "", address, other
			if err := p.compare(readback.Input, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// unprogrammed: veths that no programmed pod has carry nothing.
func (p *Pass) unprogrammed(is4 bool, groups []netip.Addr) error {
	other := stranger(is4)
	for _, veth := range p.veths {
		for _, a := range groups {
			for _, c := range []readback.Class{
				{In: veth, Out: uplink, Src: a, Dst: other}, {In: veth, Out: uplink, Src: other, Dst: a},
				{In: uplink, Out: veth, Src: a, Dst: other}, {In: uplink, Out: veth, Src: other, Dst: a},
			} {
				if err := p.compareKinds(readback.Forward, c); err != nil {
					return err
				}
			}
			for _, end := range p.nodeEnds(is4) {
				for _, c := range []readback.Class{{In: veth, Src: a, Dst: end, DstLocal: true}, {In: veth, Src: end, Dst: a, DstLocal: true}} {
					if err := p.compareKinds(readback.Input, c); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// strangersForward: what is no pod's passes, as far as it isn't.
func (p *Pass) strangersForward(is4 bool, groups []netip.Addr) error {
	other := stranger(is4)
	for _, in := range p.names {
		for _, a := range groups {
			for _, c := range []readback.Class{{In: in, Out: uplink, Src: a, Dst: other}, {In: uplink, Out: in, Src: other, Dst: a}} {
				if err := p.compareKinds(readback.Forward, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// strangersInput: what comes to the node from elsewhere.
func (p *Pass) strangersInput(is4 bool, groups []netip.Addr) error {
	for _, in := range p.names {
		for _, a := range groups {
			for _, b := range p.nodeEnds(is4) {
				for _, c := range []readback.Class{{In: in, Src: a, Dst: b, DstLocal: true}, {In: in, Src: b, Dst: a, DstLocal: true}} {
					if err := p.compareKinds(readback.Input, c); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// nodeEnds are addresses that matter together with any other: a stranger's
// first, then the ends of the tunnel.
func (p *Pass) nodeEnds(is4 bool) []netip.Addr {
	out := []netip.Addr{stranger(is4)}
	if l := p.x.node.Local; l.IsValid() && l.Is4() == is4 {
		out = append(out, l)
	}
	for _, e := range p.x.node.Endpoints {
		if e.Is4() == is4 {
			return append(out, e)
		}
	}
	return out
}

// pairs are pairs of addresses that stand for any two: at a hook where no
// policy is asked, a few kinds are all that there are.
func (p *Pass) pairs(groups []netip.Addr, hook readback.Hook) (out [][2]netip.Addr) {
	signature := p.program.SignatureAt(hook)
	seen := map[string]bool{}
	var kinds []netip.Addr
	for _, a := range groups {
		if kind := signature(a) + p.x.node.kind(a); !seen[kind] {
			seen[kind] = true
			kinds = append(kinds, a)
		}
	}
	for _, a := range kinds {
		for _, b := range kinds {
			out = append(out, [2]netip.Addr{a, b})
		}
	}
	return out
}

// origins: where packets may come from.
func (p *Pass) origins(pairs [][2]netip.Addr) error {
	faces := slices.Concat(p.names, p.veths)
	for l := range p.x.links {
		faces = append(faces, l.veth)
		break // rules know them by the beginning of their names; others are named
	}
	for _, in := range faces {
		for _, pair := range pairs {
			for _, c := range p.kinds(readback.Class{In: in, Src: pair[0], Dst: pair[1]}) {
				for _, c.RouteBack = range []bool{true, false} {
					if err := p.compare(readback.Prerouting, c); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// fromNode: what the node itself sends is nobody's to judge.
func (p *Pass) fromNode(pairs [][2]netip.Addr) error {
	for _, out := range append(slices.Clone(p.names), nobody) {
		for _, pair := range pairs {
			if err := p.compareKinds(readback.Output, readback.Class{Out: out, Src: pair[0], Dst: pair[1], SrcLocal: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaving: whatever has come so far leaves.
func (p *Pass) leaving(pairs [][2]netip.Addr) error {
	for _, out := range append(slices.Clone(p.names), nobody) {
		for _, pair := range pairs {
			for _, c := range []readback.Class{
				{Out: out, Src: pair[0], Dst: pair[1], SrcLocal: true}, {In: uplink, Out: out, Src: pair[0], Dst: pair[1]}, {In: nobody, Out: out, Src: pair[0], Dst: pair[1]},
			} {
				if err := p.compareKinds(readback.Postrouting, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
