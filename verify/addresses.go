package verify

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/verify/kernel"
)

func (p *Pass) of(is4 bool) []netip.Addr {
	if is4 {
		return p.groups[0]
	}
	return p.groups[1]
}

// group picks one address for each kind of treatment, among all addresses that either side names,
// and their neighbours.
func (p *Pass) group() {
	type key struct {
		kernel int32
		view   cluster.View
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
		k := key{kernel: p.kernel.Signature(a), view: p.x.meaning.View(a),
			node: p.x.node.signature(a)}
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
	for _, list := range [][]netip.Addr{p.program.Addresses(), p.x.meaning.Addresses(),
		p.x.node.addresses()} {
		for _, a := range list {
			add(a)
			add(a.Prev())
			add(a.Next())
		}
	}
}

// nameInterfaces finds the interfaces that rules distinguish.
func (p *Pass) nameInterfaces() {
	p.names = []string{uplink, loopback}
	tunnel := p.x.node.Tunnel
	if tunnel != "" {
		p.names = append(p.names, tunnel)
	}
	programmed := map[string]bool{}
	for l := range p.x.links {
		programmed[l.veth] = true
	}
	veths := map[string]bool{noPod: true}
	for _, a := range p.x.meaning.Attachments() {
		if isVeth(a.Interface) && !programmed[a.Interface] {
			veths[a.Interface] = true
		}
	}
	for _, name := range p.program.Interfaces(kernel.Prerouting, kernel.Input, kernel.Forward,
		kernel.Output, kernel.Postrouting) {
		switch {
		case name == "" || name == loopback || name == tunnel || programmed[name] ||
			strings.HasPrefix(vethPrefix, name):
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
	*cluster.Attachment
	address netip.Addr
}

// face is the interface by which a pod's packets come and go.
func (at place) face() string {
	if at.Interface == "" {
		return bridge
	}
	return at.Interface
}

// placesOf lists the places of a family. Pods with the same policies follow each other, so that
// cached results of one help the next.
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
		return fmt.Sprint(p.x.meaning.Selecting(at.Pod, policy.Ingress),
			p.x.meaning.Selecting(at.Pod, policy.Egress))
	}
	keys := map[string]string{}
	for _, at := range out {
		keys[at.ID] = profile(at)
	}
	slices.SortStableFunc(out, func(a, b place) int {
		return strings.Compare(keys[a.ID], keys[b.ID])
	})
	return out
}

// nodeEnds are addresses to pair with all others: a stranger's first, then the ends of the tunnel.
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

// kindsAt are addresses that stand for all at a hook where no policy counts: what holds for each
// two of them holds for any two.
func (p *Pass) kindsAt(hook kernel.Hook, groups []netip.Addr) (kinds []netip.Addr) {
	signature := p.program.SignatureAt(hook)
	seen := map[string]bool{}
	for _, a := range groups {
		if kind := signature(a) + p.x.node.kind(a); !seen[kind] {
			seen[kind] = true
			kinds = append(kinds, a)
		}
	}
	return kinds
}
