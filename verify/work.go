package verify

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/verify/kernel"
)

// uplink and bridge are interfaces that no rule names: the way out, and one that pods of other
// plugins share.
const uplink, bridge = "verify-up", "verify-br"

// loopback is the interface of what the node sends to itself.
const loopback = "lo"

// noPod is a veth of no pod.
const noPod = vethPrefix + "-nobody"

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
				func() error { return p.errors(at, groups) },
				func() error { return p.neighbours(at.face(), at.address) },
			)
			if p.x.node.IPVS {
				p.work = append(p.work, func() error { return p.sentOnOf(at, groups) })
			}
		}
		p.work = append(p.work,
			func() error { return p.unprogrammed(is4, groups) },
			func() error { return p.neighbours(uplink, stranger(is4)) },
			func() error { return p.neighbours(noPod, stranger(is4)) },
			func() error { return p.strangersForward(is4, groups) },
			func() error { return p.strangersInput(is4, groups) },
		)
		hooks := map[kernel.Hook]func(src, dst netip.Addr) error{
			kernel.Prerouting: p.origins, kernel.Output: p.fromNode, kernel.Postrouting: p.leaving,
		}
		if p.x.node.IPVS { // which makes each address on output a kind of its own
			delete(hooks, kernel.Output)
			p.work = append(p.work, func() error { return p.sentByNone(is4, groups) })
		}
		for hook, compare := range hooks {
			kinds := p.kindsAt(hook, groups)
			for _, src := range kinds {
				p.work = append(p.work, func() error { return p.toEach(kinds, src, compare) })
			}
		}
	}
}

// kinds are the variations of a class that the policies of a pod distinguish.
func (p *Pass) kinds(c kernel.Class) []kernel.Class {
	c = fresh(c)
	out := []kernel.Class{c}
	vary := func(f func(v *kernel.Class)) {
		v := c
		f(&v)
		out = append(out, v)
	}
	vary(func(v *kernel.Class) { v.NoSYN = true })
	vary(func(v *kernel.Class) { v.DNATed = true })
	vary(func(v *kernel.Class) { v.State, v.NoSYN = kernel.Established, true })
	vary(func(v *kernel.Class) {
		v.State, v.NoSYN, v.Label = kernel.Established, true, kernel.LabelWith(p.x.node.CutLabel)
	})
	other := stranger(c.Src.Is4())
	for _, state := range []kernel.State{kernel.Related, kernel.Invalid, kernel.Untracked} {
		var end netip.Addr // no connection
		if state == kernel.Related {
			end = other
		}
		for _, noSYN := range []bool{false, true} {
			vary(func(v *kernel.Class) {
				v.State, v.NoSYN, v.OrigSrc, v.ReplySrc = state, noSYN, end, end
			})
		}
	}
	for _, ends := range [][2]netip.Addr{{c.Src, other}, {other, c.Src}} {
		vary(func(v *kernel.Class) {
			v.State, v.OrigSrc, v.ReplySrc = kernel.Related, ends[0], ends[1]
		})
	}
	return out
}

// fresh is the class as a new connection, from its source to its destination.
func fresh(c kernel.Class) kernel.Class {
	c.Hops, c.RouteBack, c.State, c.OrigSrc, c.ReplySrc = 64, true, kernel.New, c.Src, c.Dst
	return c
}

func (p *Pass) compareKinds(hook kernel.Hook, c kernel.Class) error {
	for _, v := range p.kinds(c) {
		if err := p.compare(hook, v); err != nil {
			return err
		}
	}
	return nil
}

// newOnly compares a new connection alone.
func (p *Pass) newOnly(hook kernel.Hook, c kernel.Class) error {
	return p.compare(hook, fresh(c))
}

// outward: what a pod sends to all that aren't on this node.
func (p *Pass) outward(at place, groups []netip.Addr) error {
	for _, peer := range groups {
		for i, name := range p.names {
			c := kernel.Class{In: at.face(), Out: name, Src: at.address, Dst: peer}
			if i > 0 {
				if err := p.newOnly(kernel.Forward, c); err != nil {
					return err
				}
			} else if err := p.compareKinds(kernel.Forward, c); err != nil {
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
			c := kernel.Class{In: name, Out: at.face(), Src: peer, Dst: at.address}
			if i > 0 {
				if err := p.newOnly(kernel.Forward, c); err != nil {
					return err
				}
			} else if err := p.compareKinds(kernel.Forward, c); err != nil {
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
		c := kernel.Class{In: at.face(), Src: at.address, Dst: peer, DstLocal: true}
		if slices.Contains(own, peer) || peer == stranger(peer.Is4()) {
			if err := p.compareKinds(kernel.Input, c); err != nil {
				return err
			}
		} else if err := p.newOnly(kernel.Input, c); err != nil {
			return err
		}
		c.DstLocal = false // multicast
		if err := p.newOnly(kernel.Input, c); err != nil {
			return err
		}
	}
	return nil
}

// posing: a pod with an address that isn't its own, and what is led to it.
func (p *Pass) posing(at place, groups []netip.Addr) error {
	other := stranger(at.address.Is4())
	for _, a := range groups {
		for hook, c := range map[kernel.Hook][]kernel.Class{
			kernel.Forward: {{In: at.face(), Out: uplink, Src: a, Dst: other},
				{In: uplink, Out: at.face(), Src: other, Dst: a}},
			kernel.Input: {{In: at.face(), Src: a, Dst: other, DstLocal: true}},
		} {
			for _, class := range c {
				if err := p.compareKinds(hook, class); err != nil {
					return err
				}
			}
		}
		// errors about the pod's connections, by others
		for _, ends := range [][2]netip.Addr{{at.address, other}, {other, at.address}} {
			c := fresh(kernel.Class{In: at.face(), Out: uplink, Src: a, Dst: other})
			c.State, c.OrigSrc, c.ReplySrc = kernel.Related, ends[0], ends[1]
			if err := p.compare(kernel.Forward, c); err != nil {
				return err
			}
		}
		for _, end := range p.nodeEnds(other.Is4())[1:] {
			if err := p.newOnly(kernel.Forward,
				kernel.Class{In: at.face(), Out: uplink, Src: a, Dst: end}); err != nil {
				return err
			}
			if err := p.newOnly(kernel.Input,
				kernel.Class{In: at.face(), Src: a, Dst: end, DstLocal: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// toLocals: the whole way between two pods of this node, for each ordered pair.
func (p *Pass) toLocals(at place) error {
	for _, to := range p.placesOf(at.address.Is4()) {
		c := kernel.Class{In: at.face(), Out: to.face(), Src: at.address, Dst: to.address}
		if err := p.compareKinds(kernel.Forward, c); err != nil {
			return err
		}
		// To a veth where that pod isn't: there errors by a pod that is an end pass, and no others.
		other := stranger(at.address.Is4())
		c = fresh(c)
		c.Out, c.State = noPod, kernel.Related
		for _, ends := range [][2]netip.Addr{{other, other}, {at.address, other},
			{other, at.address}} {
			c.OrigSrc, c.ReplySrc = ends[0], ends[1]
			if err := p.compare(kernel.Forward, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// errors: what a pod sends about connections, by each address that may be an end of them. To a veth
// where no pod is, nothing else passes.
func (p *Pass) errors(at place, groups []netip.Addr) error {
	other := stranger(at.address.Is4())
	for _, end := range groups {
		for _, ends := range [][2]netip.Addr{{end, other}, {other, end}} {
			c := fresh(kernel.Class{In: at.face(), Src: at.address, Dst: other})
			c.State, c.OrigSrc, c.ReplySrc = kernel.Related, ends[0], ends[1]
			local := c
			local.DstLocal = true
			if err := p.compare(kernel.Input, local); err != nil {
				return err
			}
			for _, c.Out = range []string{uplink, noPod} {
				if err := p.compare(kernel.Forward, c); err != nil {
					return err
				}
				if !p.x.node.IPVS {
					continue
				}
				sentOn := c
				sentOn.In = ""
				if err := p.compare(kernel.Output, sentOn); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// discovery is the class as neighbour discovery (RFC 4861).
func discovery(c kernel.Class) kernel.Class {
	const solicitation, hops = 135, 255
	c.State, c.Type, c.Hops, c.RouteBack = kernel.Untracked, solicitation, hops, true
	return c
}

// neighbours: neighbour discovery and what looks like it. On output only IPVS has rules for it.
func (p *Pass) neighbours(face string, address netip.Addr) error {
	if address.Is4() {
		return nil
	}
	const before, after, last = 132, 138, 255
	other := stranger(false)
	for kind := uint8(before); kind <= after; kind++ {
		for _, hops := range []uint8{last - 1, last} {
			c := kernel.Class{State: kernel.Untracked, Type: kind, Hops: hops, RouteBack: true}
			c.In, c.Out, c.Src, c.Dst = face, uplink, address, other
			if err := p.compare(kernel.Forward, c); err != nil {
				return err
			}
			c.In, c.Out, c.Src, c.Dst = uplink, face, other, address
			if err := p.compare(kernel.Forward, c); err != nil {
				return err
			}
			c.In, c.Out, c.Src, c.Dst = face, "", address, other
			if err := p.compare(kernel.Input, c); err != nil {
				return err
			}
			if !p.x.node.IPVS {
				continue
			}
			c.In, c.Out, c.Src, c.Dst = "", face, other, address
			for _, c.SrcLocal = range []bool{false, true} {
				if err := p.compare(kernel.Output, c); err != nil {
					return err
				}
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
			for _, c := range []kernel.Class{
				{In: veth, Out: uplink, Src: a, Dst: other},
				{In: veth, Out: uplink, Src: other, Dst: a},
				{In: uplink, Out: veth, Src: a, Dst: other},
				{In: uplink, Out: veth, Src: other, Dst: a},
			} {
				if err := p.compareKinds(kernel.Forward, c); err != nil {
					return err
				}
			}
			for _, end := range p.nodeEnds(is4) {
				for _, c := range []kernel.Class{{In: veth, Src: a, Dst: end, DstLocal: true},
					{In: veth, Src: end, Dst: a, DstLocal: true}} {
					if err := p.compareKinds(kernel.Input, c); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// strangersForward: forwarded packets of no pod pass.
func (p *Pass) strangersForward(is4 bool, groups []netip.Addr) error {
	other := stranger(is4)
	for _, in := range p.names {
		for _, a := range groups {
			for _, c := range []kernel.Class{{In: in, Out: uplink, Src: a, Dst: other},
				{In: uplink, Out: in, Src: other, Dst: a}} {
				if err := p.compareKinds(kernel.Forward, c); err != nil {
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
				for _, c := range []kernel.Class{{In: in, Src: a, Dst: b, DstLocal: true},
					{In: in, Src: b, Dst: a, DstLocal: true}} {
					if err := p.compareKinds(kernel.Input, c); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// toEach compares what one kind of address sends to each.
func (p *Pass) toEach(kinds []netip.Addr, src netip.Addr,
	compare func(src, dst netip.Addr) error) error {
	for _, dst := range kinds {
		if err := compare(src, dst); err != nil {
			return err
		}
	}
	return nil
}

// origins: where packets may come from.
func (p *Pass) origins(src, dst netip.Addr) error {
	faces := slices.Concat(p.names, p.veths)
	for l := range p.x.links {
		faces = append(faces, l.veth)
		break // rules know them by the beginning of their names; others are named
	}
	for _, in := range faces {
		for _, c := range p.kinds(kernel.Class{In: in, Src: src, Dst: dst}) {
			for _, c.RouteBack = range []bool{true, false} {
				if err := p.compare(kernel.Prerouting, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fromNode: no policy judges what the node itself sends.
func (p *Pass) fromNode(src, dst netip.Addr) error {
	for _, out := range append(slices.Clone(p.names), noPod) {
		err := p.compareKinds(kernel.Output,
			kernel.Class{Out: out, Src: src, Dst: dst, SrcLocal: true})
		if err != nil {
			return err
		}
	}
	return nil
}

// leaving: every packet that has come so far leaves.
func (p *Pass) leaving(src, dst netip.Addr) error {
	for _, out := range append(slices.Clone(p.names), noPod) {
		for _, in := range []string{"", uplink, noPod} {
			err := p.compareKinds(kernel.Postrouting,
				kernel.Class{In: in, Out: out, Src: src, Dst: dst, SrcLocal: in == ""})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
