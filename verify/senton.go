package verify

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/verify/kernel"
)

// sentOn: what IPVS sends on is judged by the addresses of both ends. What the node itself sends
// isn't, nor are resets in the name of a connection's other end.
func (x *expectations) sentOn(c *kernel.Class, p *progress) {
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		x.always(c, p, d)
		if c.State == kernel.Related && c.NoSYN {
			p.pass(kernel.Protocol(protocolTCP), "a reset of a connection that is denied")
		}
		switch {
		case c.SrcLocal:
			p.pass(p.open, "the node's own")
		case d == policy.Egress:
			x.sender(c, p)
		default:
			x.receiver(c, p)
		}
		p.next()
	}
}

// sentOnOf: what IPVS sends on for a pod, and to it.
func (p *Pass) sentOnOf(at place, groups []netip.Addr) error {
	for _, peer := range groups {
		for _, c := range []kernel.Class{{Out: uplink, Src: at.address, Dst: peer},
			{Out: at.face(), Src: peer, Dst: at.address}} {
			if err := p.compareKinds(kernel.Output, c); err != nil {
				return err
			}
		}
		for _, c := range []kernel.Class{{Out: noPod, Src: at.address, Dst: peer},
			{Out: noPod, Src: peer, Dst: at.address}} {
			if err := p.newOnly(kernel.Output, c); err != nil {
				return err
			}
		}
	}
	for _, to := range p.placesOf(at.address.Is4()) {
		c := kernel.Class{Out: to.face(), Src: at.address, Dst: to.address}
		if err := p.compareKinds(kernel.Output, c); err != nil {
			return err
		}
	}
	return nil
}

// sentByNone: what the node sends, and what IPVS sends on for no pod, from and to each address.
// Neighbour discovery passes from each of them: no veth says there whose it is.
func (p *Pass) sentByNone(is4 bool, groups []netip.Addr) error {
	faces := append(slices.Clone(p.names), noPod)
	for _, end := range p.nodeEnds(is4) {
		for _, a := range groups {
			for _, out := range faces {
				for _, c := range []kernel.Class{{Out: out, Src: a, Dst: end},
					{Out: out, Src: end, Dst: a}} {
					for _, c.SrcLocal = range []bool{false, true} {
						if err := p.compareKinds(kernel.Output, c); err != nil {
							return err
						}
						if is4 {
							continue
						}
						if err := p.compare(kernel.Output, discovery(c)); err != nil {
							return err
						}
					}
				}
			}
		}
	}
	return nil
}
