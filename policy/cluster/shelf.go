package cluster

import (
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"
	"unique"

	"github.com/google/uuid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// shelf keeps records by number, in as little memory as can be: a cluster has 150,000 of them. What
// is given out may be a copy.
type shelf struct {
	size   int           // how many numbers there are
	blocks []*shelfBlock // nil where all numbers are free
	own    []bool        // by block; a snapshot has the others, too
	// whole are the records that a shelvedPod can't hold, such as those of the pods on this node.
	whole map[selector.Number]*podRecord
	// recent are some that were read: a change of a pod reads a few again and again.
	recent map[selector.Number]*podRecord
}

// shelfBlock is room for some pods. One slice of all would be there twice while it grows.
type shelfBlock struct {
	pods [perBlock]shelvedPod
	used int
}

// perBlock makes a block 8 KiB with what Go adds, a size that its memory comes in.
const perBlock = 73

const mostRecent = 1024

// shelvedPod is a record in few bytes. It can hold those of pods that aren't attached here, with a
// UUID, at most one address of each family, all of which are believed or none.
type shelvedPod struct {
	namespace, node unique.Handle[string]
	name            string
	labels          selector.LabelSet
	ports           policy.PodPorts
	created         int64 // seconds since 1970; 0 for no time
	uid             uuid.UUID
	addr6           [16]byte
	addr4           [4]byte
	traits          traits
}

// traits are bits.
type traits uint8

const (
	traitShelved traits = 1 << iota // without it the number is free
	traitAddr4
	traitAddr6
	traitAddr6First
	traitBelieved
	traitHostNetwork
	traitTerminating
	traitFinished
)

func newShelf() *shelf {
	return &shelf{whole: map[selector.Number]*podRecord{}, recent: map[selector.Number]*podRecord{}}
}

// snapshot is the shelf as it is now, for reading alone. It costs little: what changes later is
// copied then.
func (s *shelf) snapshot() *shelf {
	clear(s.own)
	out := newShelf()
	out.size, out.blocks, out.whole = s.size, slices.Clone(s.blocks), maps.Clone(s.whole)
	return out
}

// at is the place of a number that there is, for reading.
func (s *shelf) at(n selector.Number) *shelvedPod {
	return &s.blocks[n/perBlock].pods[n%perBlock]
}

// set fills the place of a number, or clears it.
func (s *shelf) set(n selector.Number, p shelvedPod) {
	i := n / perBlock
	switch block := s.blocks[i]; {
	case block == nil:
		s.blocks[i], s.own[i] = new(shelfBlock), true
	case !s.own[i]:
		mine := *block
		s.blocks[i], s.own[i] = &mine, true
	}
	block, place := s.blocks[i], &s.blocks[i].pods[n%perBlock]
	if place.is(traitShelved) {
		block.used--
	}
	if p.is(traitShelved) {
		block.used++
	}
	*place = p
	if block.used == 0 {
		s.blocks[i] = nil
	}
	delete(s.recent, n)
}

// has reports whether there is a record of that number.
func (s *shelf) has(n selector.Number) bool {
	return int(n) < s.size && s.blocks[n/perBlock] != nil && s.at(n).is(traitShelved)
}

// get returns the record of a number that there is.
func (s *shelf) get(n selector.Number) *podRecord {
	if r := s.whole[n]; r != nil {
		return r
	}
	r := s.recent[n]
	if r == nil {
		if len(s.recent) >= mostRecent {
			clear(s.recent)
		}
		r = s.at(n).record(n)
		s.recent[n] = r
	}
	return r
}

// all yields every record, in the order of their numbers.
func (s *shelf) all() iter.Seq[*podRecord] {
	return func(yield func(*podRecord) bool) {
		for i := range s.size {
			n := selector.Number(i)
			if !s.has(n) {
				continue
			}
			r := s.whole[n]
			if r == nil {
				r = s.at(n).record(n) // one of too many to remember
			}
			if !yield(r) {
				return
			}
		}
	}
}

// attachments are those of the pod of a number that there is.
func (s *shelf) attachments(n selector.Number) map[string]policy.Endpoint {
	if r := s.whole[n]; r != nil {
		return r.endpoints
	}
	return nil // shelved pods have none
}

// id is that of the pod of a number that there is.
func (s *shelf) id(n selector.Number) selector.Pod {
	if r := s.whole[n]; r != nil {
		return r.ID
	}
	return s.at(n).id()
}

// key is the namespace and name of the pod of a number that there is.
func (s *shelf) key(n selector.Number) policy.Key {
	if r := s.whole[n]; r != nil {
		return r.Key()
	}
	p := s.at(n)
	return policy.Key{Namespace: p.namespace.Value(), Name: p.name}
}

// put keeps a record by its number, which is free: one of before, or the next. What wouldn't come
// back as it was is kept whole, whatever the reason.
func (s *shelf) put(r *podRecord) {
	n := r.number
	if int(n) == s.size {
		if n%perBlock == 0 {
			s.blocks, s.own = append(s.blocks, nil), append(s.own, false)
		}
		s.size++
	}
	p := shelve(r)
	if !reflect.DeepEqual(p.record(n), r) {
		p = shelvedPod{traits: traitShelved}
		s.whole[n] = r
	}
	s.set(n, p)
}

// drop frees a number.
func (s *shelf) drop(n selector.Number) {
	delete(s.whole, n)
	s.set(n, shelvedPod{})
}

// shelve makes the best of a record. It may hold less.
func shelve(r *podRecord) shelvedPod {
	p := shelvedPod{
		namespace: unique.Make(r.ID.Namespace), node: unique.Make(r.Node),
		name: r.ID.Name, labels: r.Labels, ports: r.Ports, traits: traitShelved,
	}
	if !r.Created.IsZero() {
		p.created = r.Created.Unix()
	}
	if id, err := uuid.Parse(r.ID.UID); err == nil {
		p.uid = id
	}
	for _, a := range r.Addresses {
		if a.Is4() {
			p.addr4, p.traits = a.As4(), p.traits|traitAddr4
		} else {
			p.addr6, p.traits = a.As16(), p.traits|traitAddr6
		}
	}
	p.note(traitAddr6First, len(r.Addresses) > 0 && r.Addresses[0].Is6())
	p.note(traitBelieved, len(r.believed) > 0)
	p.note(traitHostNetwork, r.HostNetwork)
	p.note(traitTerminating, r.Terminating)
	p.note(traitFinished, r.Finished)
	return p
}

// record is what was shelved.
func (p *shelvedPod) record(n selector.Number) *podRecord {
	r := &podRecord{number: n, known: true, Pod: policy.Pod{
		ID:   p.id(),
		Node: p.node.Value(), Labels: p.labels, Ports: p.ports,
		HostNetwork: p.is(traitHostNetwork), Terminating: p.is(traitTerminating),
		Finished: p.is(traitFinished),
	}}
	if p.created != 0 {
		r.Created = time.Unix(p.created, 0)
	}
	r.Addresses = p.addresses()
	if p.is(traitBelieved) {
		r.believed = r.Addresses
	}
	return r
}

func (p *shelvedPod) id() selector.Pod {
	return selector.Pod{Namespace: p.namespace.Value(), Name: p.name, UID: p.uid.String()}
}

func (p *shelvedPod) addresses() []netip.Addr {
	addr4, addr6 := netip.AddrFrom4(p.addr4), netip.AddrFrom16(p.addr6)
	switch {
	case p.is(traitAddr4) && p.is(traitAddr6) && p.is(traitAddr6First):
		return []netip.Addr{addr6, addr4}
	case p.is(traitAddr4) && p.is(traitAddr6):
		return []netip.Addr{addr4, addr6}
	case p.is(traitAddr4):
		return []netip.Addr{addr4}
	case p.is(traitAddr6):
		return []netip.Addr{addr6}
	}
	return nil
}

// has reports whether an address is one of those. Whole records have theirs elsewhere.
func (p *shelvedPod) has(a netip.Addr) bool {
	switch {
	case !isKey(a):
		return false
	case a.Is4():
		return p.is(traitAddr4) && p.addr4 == a.As4()
	}
	return p.is(traitAddr6) && p.addr6 == a.As16()
}

func (p *shelvedPod) is(t traits) bool { return p.traits&t != 0 }

func (p *shelvedPod) note(t traits, is bool) {
	if is {
		p.traits |= t
	}
}
