package nft

import (
	"fmt"
	"net/netip"
	"testing"
)

// This file adds translation to the model of model_test.go, and asks of it what leak_test.go asks
// of verdicts.

// A place is where a packet can be bound to after translation, and the generation at which that was
// decided.
type place struct {
	dst    netip.Addr
	lookup int
}

// translate returns the places of the first packet of a connection that meets the NAT chains at a
// generation. The first chain that translates is the last; what one accepts goes to the next.
func (h history) translate(p packet, entry int) map[place]bool {
	places, at := map[place]bool{}, map[int]bool{entry: true}
	for _, c := range h.baseChains(NATChain, entry) {
		next := map[int]bool{}
		for l := range at {
			for rules := l; rules <= h.last(entry); rules++ {
				for o := range (run{h, p, rules, h.last(entry)}).chain(c.Name, rules) {
					if o.kind == NATTo {
						places[place{o.to, o.lookup}] = true
					}
					if o.kind == Accept || o.kind == NoVerdict {
						next[o.lookup] = true
					}
				}
			}
		}
		at = next
	}
	for l := range at {
		places[place{p.dst, l}] = true
	}
	return places
}

// natTarget looks a destination up in a NAT map, as every packet of the model does: with TCP,
// port 80.
func (r *Ruleset) natTarget(name string, dst netip.Addr) (netip.Addr, bool) {
	s := r.Sets[name]
	if s == nil {
		return netip.Addr{}, false
	}
	v, ok := s.Elements[AddrProtoPortElement(dst, 6, 80)]
	return v.Target.Addr(), ok
}

// nat draws two NAT maps, and a NAT chain that looks up in them.
func (g *generator) nat() {
	c := &Chain{Name: fmt.Sprintf("nat/%d", g.int("NAT version", 1, 2)),
		Base: &Base{Type: NATChain, Hook: HookPrerouting, Priority: -100}}
	if len(g.guards) > 0 && !g.oneIn(3, "no exception by guard") {
		c.Rules = append(c.Rules,
			rule(InSet{[]Field{DstAddr4}, g.pick(g.guards, "NAT guard")}, ret))
	}
	for _, name := range []string{"n0", "n1"} {
		if g.oneIn(4, "no NAT map "+name) {
			continue
		}
		m := g.r.AddSet(&Set{Name: name, Key: hostPortKey, Targets: DstAddr4})
		for i := range modelAddrs {
			if g.oneIn(2, fmt.Sprintf("%s maps %d", name, i)) {
				to := modelAddr(g.int("NAT target", 0, modelAddrs-1))
				m.Elements[AddrProtoPortElement(modelAddr(i), 6, 80)] = NATTarget(
					netip.AddrPortFrom(to, 8080))
			}
		}
		dnat := DNAT{hostPortKey, name}
		switch {
		case g.oneIn(4, "no rule for "+name):
		case len(g.plain) > 0 && g.oneIn(3, name+" for a set"):
			c.Rules = append(c.Rules,
				rule(InSet{[]Field{DstAddr4}, g.pick(g.plain, "NAT set")}, dnat))
		case g.oneIn(3, name+" in a chain"):
			g.r.AddChain(&Chain{Name: "translate/" + name, Rules: []Rule{rule(dnat)}})
			c.Rules = append(c.Rules, rule(jump("translate/"+name)))
		default:
			c.Rules = append(c.Rules, rule(dnat))
		}
		if g.oneIn(3, "exception") {
			c.Rules = append(c.Rules,
				rule(MatchAddr{DstAddr4, modelAddr(g.int("dst", 0, modelAddrs-1))}, ret))
		}
	}
	if !g.oneIn(4, "no NAT chain") {
		g.r.AddChain(c)
	}
}

// leftAlone reports whether guards keep a packet out of all translation.
func (r *Ruleset) leftAlone(p packet) bool {
	h := history{states: []*Ruleset{r}}
	for _, c := range h.baseChains(NATChain, 0) {
		if len(c.Rules) == 0 {
			continue
		}
		s, ok := c.Rules[0].Statements[0].(InSet)
		if !ok || !r.Sets[s.Set].Guard {
			return false
		}
		if _, in := (run{h, p, 0, 0}).find(s.Set, s.Fields[0], 0); !in {
			return false
		}
	}
	return true
}

// leakTranslated looks for packets that are translated to where neither state leads, or although
// guards of both keep them out of it. That no packet passes which both states deny, is asked by
// leak for every packet and generation, so also for what a packet is after translation. The rules
// of the model look at the destination alone.
func leakTranslated(h history, have, want *Ruleset) error {
	for dst := range modelAddrs {
		p := packet{modelAddr(0), modelAddr(dst)}
		known := map[netip.Addr]bool{p.dst: true}
		leftAlone := have.leftAlone(p) && want.leftAlone(p)
		for _, r := range []*Ruleset{have, want} {
			for name := range r.Sets {
				if to, ok := r.natTarget(name, p.dst); ok && !leftAlone {
					known[to] = true
				}
			}
		}
		for entry := range h.states {
			for to := range h.translate(p, entry) {
				if !known[to.dst] {
					return fmt.Errorf(
						"%v is translated to %s, entering at %d; left alone by both: %v", p, to.dst,
						entry, leftAlone)
				}
			}
		}
	}
	return nil
}

// The model itself sees what a mixture of old rules and new elements leads to, and the planner has
// no such mixture pass.
func TestTheModelTranslates(t *testing.T) {
	t.Parallel()
	p := packet{modelAddr(0), modelAddr(1)}
	made := func(to int, allow int) *Ruleset {
		r := NewRuleset()
		m := r.AddSet(&Set{Name: "n", Key: hostPortKey, Targets: DstAddr4})
		if to > 0 {
			m.Elements[AddrProtoPortElement(p.dst, 6, 80)] = NATTarget(
				netip.AddrPortFrom(modelAddr(to), 8080))
		}
		r.AddChain(&Chain{Name: "nat", Base: &Base{Type: NATChain, Hook: HookPrerouting},
			Rules: []Rule{rule(DNAT{hostPortKey, "n"})}})
		r.AddChain(&Chain{Name: "base", Base: &Base{Hook: HookForward},
			Rules: []Rule{rule(MatchAddr{DstAddr4, modelAddr(allow)}, accept), rule(drop)}})
		return r
	}
	have, want := made(2, 4), made(3, 5)
	h := history{states: []*Ruleset{have, want}}
	places := h.translate(p, 0)
	for _, to := range []place{{modelAddr(2), 0}, {modelAddr(3), 1}} {
		if !places[to] {
			t.Errorf("%v isn't translated to %v: %v", p, to, places)
		}
	}
	if len(places) != 2 {
		t.Errorf("%v goes elsewhere, too: %v", p, places)
	}
	if places := (history{states: []*Ruleset{made(0, 4)}}).translate(p, 0); len(places) != 1 ||
		!places[place{p.dst, 0}] {
		t.Errorf("without a key: %v", places)
	}
	if err := leak(have, want, 100); err != nil {
		t.Error(err)
	}
	if err := leakTranslated(h, made(0, 4), made(0, 5)); err == nil {
		t.Error("a translation that neither state has isn't seen")
	}
}
