package ruleset

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/nft"
)

// byContent has the sets of address ranges, each of which the table knows by a name that follows
// from what is in it. So none ever changes: another content is another set, and the rules that look
// into it are written anew. Kernels get lookups wrong while such a set changes (ADR 27).
//
// All else in this package calls these sets by one name for all their contents.
type byContent struct {
	sets   map[string]*contentSet
	named  map[string]string     // those names, by the names in the table
	chains map[string]*nft.Chain // those that look into such sets, by these sets' one name
}

// contentSet is a set of ranges as the table has it, and the chains that look into it.
type contentSet struct {
	now   *nft.Set
	users map[string]struct{}
}

func newByContent() byContent {
	return byContent{sets: map[string]*contentSet{}, named: map[string]string{},
		chains: map[string]*nft.Chain{}}
}

// isByContent reports whether a set is one of ranges of one field. Those of several are sets of
// ports, which have such a name from the start.
func isByContent(s *nft.Set) bool { return s.Interval && len(s.Key) == 1 }

// contentName names a set by its content.
func contentName(name string, elements map[nft.Element]nft.Verdict) string {
	content := sha256.New()
	for _, e := range nft.SortedElements(elements) {
		content.Write([]byte(e.First + e.End())) // all of one length; a hash never fails
	}
	return nft.Name(append(strings.Split(name, "/"), hex.EncodeToString(content.Sum(nil)[:8]))...)
}

// rename puts the names in the table into a patch.
func (b *byContent) rename(p *nft.Patch) {
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(p.Sets)) {
		if b.renameSet(p, name) {
			changed = append(changed, name)
		}
	}
	for name, chain := range p.Chains {
		b.note(name, chain)
	}
	stale := map[string]struct{}{}
	for name := range p.Chains {
		stale[name] = struct{}{}
	}
	for _, set := range changed {
		maps.Copy(stale, b.sets[set].users)
	}
	for name := range stale {
		if chain := b.chains[name]; chain != nil {
			p.Chains[name] = b.written(chain)
		}
	}
}

// renameSet makes the change of a set of ranges, if it is one, a new set in the place of the old.
func (b *byContent) renameSet(p *nft.Patch, name string) (changed bool) {
	sp, old := p.Sets[name], b.sets[name]
	if old == nil && (sp == nil || sp.Create == nil || !isByContent(sp.Create)) {
		return false
	}
	delete(p.Sets, name)
	var now *contentSet
	if sp != nil {
		now = changedSet(old, name, sp)
	}
	if old != nil && now != nil && now.now.Name == old.now.Name {
		return false
	}
	if old != nil {
		p.Sets[old.now.Name] = nil
		delete(b.named, old.now.Name)
		delete(b.sets, name)
	}
	if now == nil {
		return false
	}
	b.sets[name], b.named[now.now.Name] = now, name
	made := *now.now // the patch owns it
	made.Elements = maps.Clone(made.Elements)
	p.Sets[made.Name] = &nft.SetPatch{Create: &made}
	return true
}

// changedSet is the set after a change.
func changedSet(old *contentSet, name string, sp *nft.SetPatch) *contentSet {
	out := &contentSet{users: map[string]struct{}{}}
	if old != nil {
		out.users = old.users
	}
	var set nft.Set
	if sp.Create != nil {
		set = *sp.Create
	} else {
		set = *old.now
	}
	set.Elements = maps.Clone(set.Elements)
	for e := range sp.Remove {
		delete(set.Elements, e)
	}
	maps.Copy(set.Elements, sp.Put)
	set.Name = contentName(name, set.Elements)
	out.now = &set
	return out
}

// note remembers a chain, if it looks into a set of ranges; nil is one that goes.
func (b *byContent) note(name string, chain *nft.Chain) {
	if old := b.chains[name]; old != nil {
		for _, set := range setsOf(old) {
			if s := b.sets[set]; s != nil {
				delete(s.users, name)
			}
		}
		delete(b.chains, name)
	}
	if chain == nil {
		return
	}
	for _, set := range setsOf(chain) {
		if s := b.sets[set]; s != nil {
			s.users[name] = struct{}{}
			b.chains[name] = chain
		}
	}
}

// written is a chain with the sets' names in the table.
func (b *byContent) written(chain *nft.Chain) *nft.Chain {
	out := *chain
	out.Rules = slices.Clone(chain.Rules)
	for i, r := range out.Rules {
		out.Rules[i].Statements = slices.Clone(r.Statements)
		for j, s := range r.Statements {
			in, is := s.(nft.InSet)
			if set := b.sets[in.Set]; is && set != nil {
				in.Set = set.now.Name
				out.Rules[i].Statements[j] = in
			}
		}
	}
	return &out
}

// nameOf returns by which one name this package knows a set of the table.
func (b *byContent) nameOf(inTable string) string {
	if name, is := b.named[inTable]; is {
		return name
	}
	return inTable
}
