package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// An Outcome says what becomes of a class at a hook: disjoint regions that together are the
// class's.
type Outcome struct {
	Pass  Region
	Drop  Region
	Reset Region // dropped, and TCP answered with a reset
	// Untracked is what is left out of connection tracking, whatever becomes of it else.
	Untracked Region
}

// add joins what o says.
func (out *Outcome) add(o *Outcome) {
	out.Pass, out.Drop = out.Pass.Or(o.Pass), out.Drop.Or(o.Drop)
	out.Reset, out.Untracked = out.Reset.Or(o.Reset), out.Untracked.Or(o.Untracked)
}

// An Evaluator runs classes through a program. It remembers what it found out, up to a bound, and
// is not safe for concurrent use.
type Evaluator struct {
	p       *Program
	memo    map[memoKey]*walked
	members memberships
	names   map[netip.Addr]int32
}

// maxMemo bounds what an Evaluator remembers.
const maxMemo = 1 << 16

// NewEvaluator returns an Evaluator of a program.
func NewEvaluator(p *Program) *Evaluator {
	return &Evaluator{p: p, memo: map[memoKey]*walked{},
		members: newMemberships(slices.Collect(maps.Values(p.chains)), p.indexes),
		names:   map[netip.Addr]int32{}}
}

// memoKey is what the way through a chain depends on.
type memoKey struct {
	chain    *chain
	class    Class
	src, dst int32
	is4      bool
	tracked  bool
}

// walked is what became of a class in a chain; next fell off its end.
type walked struct {
	Outcome
	next Region
}

// run is one class on its way through one base chain.
type run struct {
	e       *Evaluator
	class   Class
	tracked bool
	value   value
	// saw is told what ended a packet's way; nil: nobody asks.
	saw func(at string)
}

// Evaluate says what becomes of a class at a hook. It fails where a rule on its way looks at what a
// Class doesn't say.
func (e *Evaluator) Evaluate(hook Hook, c Class) (Outcome, error) {
	return e.evaluate(hook, c, c.Region(), nil)
}

// Why names the rule that decides about the first point of a region.
func (e *Evaluator) Why(hook Hook, c Class, at Region) string {
	where := "no rule"
	if at.Empty() {
		return where
	}
	point := Region{{at[0].First, at[0].First}}
	if _, err := e.evaluate(hook, c, point, func(at string) { where = at }); err != nil {
		return err.Error()
	}
	return where
}

func (e *Evaluator) evaluate(hook Hook, c Class, in Region, saw func(string)) (Outcome, error) {
	out := Outcome{Pass: in}
	for _, b := range e.p.bases[hook] {
		if b.base.nat && c.State != New || out.Pass.Empty() {
			continue // a connection is translated once
		}
		r := run{e: e, class: c, tracked: b.base.tracked(), saw: saw}
		w, err := r.chain(b, out.Pass)
		if err != nil {
			return out, err
		}
		out.Pass = w.next
		out.add(&w.Outcome)
	}
	return out, nil
}

// sub is a chain that is jumped to: what becomes of all of the class there, remembered, cut to
// where the packet is.
func (r *run) sub(c *chain, in Region) (*walked, error) {
	if r.saw != nil {
		return r.chain(c, in)
	}
	key := r.key(c)
	w := r.e.memo[key]
	if w == nil {
		var err error
		if w, err = r.chain(c, r.class.Region()); err != nil {
			return r.chain(c, in) // it may be about what never comes here
		}
		if len(r.e.memo) >= maxMemo {
			clear(r.e.memo)
		}
		r.e.memo[key] = w
	}
	return &walked{
		Outcome: Outcome{Pass: w.Pass.And(in), Drop: w.Drop.And(in), Reset: w.Reset.And(in),
			Untracked: w.Untracked.And(in)},
		next: w.next.And(in),
	}, nil
}

// key leaves out of the class what the chain doesn't look at.
func (r *run) key(c *chain) memoKey {
	k := memoKey{chain: c, is4: r.class.is4(), tracked: r.tracked}
	has, in := c.reads, &r.class
	for _, part := range []struct {
		bit  reads
		copy func()
	}{
		{readsIn, func() { k.class.In = in.In }},
		{readsOut, func() { k.class.Out = in.Out }},
		{readsState, func() { k.class.State = in.State }},
		{readsStatus, func() { k.class.DNATed = in.DNATed }},
		{readsLabel, func() { k.class.Label = in.Label }},
		{readsOrigSrc, func() { k.class.OrigSrc = in.OrigSrc }},
		{readsReplySrc, func() { k.class.ReplySrc = in.ReplySrc }},
		{readsBack, func() { k.class.RouteBack = in.RouteBack }},
		{readsSrcLocal, func() { k.class.SrcLocal = in.SrcLocal }},
		{readsDstLocal, func() { k.class.DstLocal = in.DstLocal }},
		{readsHops, func() { k.class.Hops = in.Hops }},
		{readsFlags, func() { k.class.NoSYN = in.NoSYN }},
		{readsSrc, func() { k.src = r.e.Signature(in.Src) }},
		{readsDst, func() { k.dst = r.e.Signature(in.Dst) }},
		{readsSrc | readsExact, func() { k.class.Src = in.Src }},
		{readsDst | readsExact, func() { k.class.Dst = in.Dst }},
	} {
		if has&part.bit == part.bit {
			part.copy()
		}
	}
	k.class.Type = in.Type // it says which packets there are
	return k
}

// Signature numbers an address by what it is a member of: no rule treats two addresses of the same
// number and family differently, but for rules that look up verdicts.
func (e *Evaluator) Signature(a netip.Addr) int32 {
	n, ok := e.names[a]
	if !ok {
		n = e.members.name(a)
		e.names[a] = n
	}
	return n
}

func (r *run) chain(c *chain, in Region) (*walked, error) {
	out := &walked{}
	for _, rule := range c.rules {
		if in.Empty() {
			break
		}
		decided, err := r.rule(c, rule, in, out)
		if err != nil && !errors.Is(err, errNoConnection) {
			return nil, fmt.Errorf("chain %s rule %d: %w", c.name, rule.number, err)
		}
		in = in.Minus(decided)
	}
	out.next = out.next.Or(in)
	return out, nil
}

// rule runs a rule, and returns the region that doesn't go on to the next.
func (r *run) rule(c *chain, rule *rule, in Region, out *walked) (Region, error) {
	for _, s := range rule.steps {
		if in.Empty() {
			return nil, nil
		}
		switch s := s.(type) {
		case *match:
			if ok, err := r.match(s, &in); err != nil || !ok {
				return nil, err
			}
		case *lookup:
			hits, err := r.lookup(s, in)
			if err != nil {
				return nil, err
			}
			if s.verdicts {
				return r.dispatch(c, rule, hits, in, out)
			}
			in = meet(hits, in, s.invert)
		case verdict:
			return r.verdict(c, rule, s, in, out)
		case effect:
			if s == untrack {
				out.Untracked = out.Untracked.Or(in)
				continue
			}
			if s == mark {
				return nil, fmt.Errorf("%s: connections get a label", in)
			}
			tcp := in.And(Protocol(unix.IPPROTO_TCP))
			out.Reset = out.Reset.Or(tcp)
			out.Drop = out.Drop.Or(in.Minus(tcp))
			r.note(c, rule)
			return in, nil
		case translate:
			if applies(s.version, r.class.is4()) {
				return r.verdict(c, rule, verdict{kind: accept}, in, out)
			}
		}
	}
	return nil, nil
}

// meet cuts a region by what is found in a set.
func meet(hits []hit, in Region, invert bool) Region {
	switch {
	case len(hits) == 0 && invert:
		return in
	case len(hits) == 0:
		return nil
	case invert:
		return in.Minus(hits[0].region)
	}
	return in.And(hits[0].region)
}

func (r *run) dispatch(c *chain, rule *rule, hits []hit, in Region, out *walked) (Region, error) {
	var decided Region
	for _, h := range hits {
		d, err := r.verdict(c, rule, h.verdict, in.And(h.region), out)
		if err != nil {
			return nil, err
		}
		decided = decided.Or(d)
	}
	return decided, nil
}

func (r *run) verdict(c *chain, rule *rule, v verdict, in Region, out *walked) (Region, error) {
	if in.Empty() {
		return nil, nil
	}
	switch v.kind {
	case accept:
		out.Pass = out.Pass.Or(in)
	case drop:
		out.Drop = out.Drop.Or(in)
	case back:
		out.next = out.next.Or(in)
		return in, nil
	default:
		w, err := r.sub(v.chain, in)
		if err != nil {
			return nil, err
		}
		out.add(&w.Outcome)
		return in.Minus(w.next), nil
	}
	r.note(c, rule)
	return in, nil
}

func (r *run) note(c *chain, rule *rule) {
	if r.saw == nil {
		return
	}
	at := fmt.Sprintf("chain %s rule %d", c.name, rule.number)
	if rule.comment != "" {
		at += " (" + rule.comment + ")"
	}
	r.saw(at)
}

// match reports whether a rule goes on, and cuts the region to where.
func (r *run) match(t *match, in *Region) (bool, error) {
	if t.from.symbolic() {
		*in = in.And(t.region)
		return true, nil
	}
	if err := r.value.read(&r.class, t.from, r.tracked, *in); err != nil {
		return false, err
	}
	return t.holds(&r.value)
}

// holds compares a value of a class.
func (t *match) holds(v *value) (bool, error) {
	var masked [64]byte
	for i := range t.first {
		mask := byte(0xff)
		if t.mask != nil {
			mask = t.mask[i]
		}
		if mask&^v.known[i] != 0 {
			return false, fmt.Errorf("bits of %s that nothing is known of", t.from)
		}
		masked[i] = v.bytes[i] & mask
	}
	got := masked[:len(t.first)]
	return (bytes.Compare(t.first, got) <= 0 && bytes.Compare(got, t.last) <= 0) != t.invert, nil
}

// lookup returns where the class is found, and what a map says there.
func (r *run) lookup(s *lookup, in Region) ([]hit, error) {
	ix := s.index
	if ix.always != nil || ix.keys == nil && ix.ranges == nil {
		return ix.always, nil
	}
	var key [64]byte
	n := 0
	for _, part := range ix.parts {
		if part.symbolic() {
			continue
		}
		if err := r.value.read(&r.class, part, r.tracked, in); err != nil {
			return nil, err
		}
		for i := range part.length {
			if r.value.known[i] != 0xff {
				return nil, fmt.Errorf("bits of %s that nothing is known of", part)
			}
		}
		n += copy(key[n:], r.value.bytes[:part.length])
	}
	switch {
	case ix.ranges == nil:
		return ix.keys[string(key[:n])], nil
	case inRanges(ix.ranges, key[:n]):
		return everywhere, nil
	}
	return nil, nil
}

// everywhere is the hit of what has nothing symbolic.
var everywhere = []hit{{region: Everything()}}
