package nft

import (
	"maps"
	"slices"
	"strings"
)

// A Batch is the ordered transactions that carry out a patch. The package documentation says what
// belongs where, and why.
type Batch struct {
	Prepare []Op // may be split
	Widen   []Op // one transaction, never split, as the next two
	Switch  []Op
	Narrow  []Op
	Finish  []Op // may be split

	// These say that the transaction must wait for packets under way: all that entered before the
	// previous one ended must have left.
	WaitBeforeWiden  bool
	WaitBeforeSwitch bool
	WaitBeforeNarrow bool
	WaitBeforeFinish bool

	// Twins says that temporary copies of base chains remain, which a second batch has to remove.
	Twins bool
}

// A Part is one step of a batch.
type Part struct {
	Name  string
	Ops   []Op
	Wait  bool // first, for packets under way
	Whole bool // one transaction
}

// Parts lists the steps in their order, empty ones included.
func (b Batch) Parts() []Part {
	return []Part{
		{Name: "prepare", Ops: b.Prepare},
		{"widen", b.Widen, b.WaitBeforeWiden, true},
		{"switch", b.Switch, b.WaitBeforeSwitch, true},
		{"narrow", b.Narrow, b.WaitBeforeNarrow, true},
		{"finish", b.Finish, b.WaitBeforeFinish, false},
	}
}

// Ops lists all operations in their order.
func (b Batch) Ops() (out []Op) {
	for _, step := range b.Parts() {
		out = append(out, step.Ops...)
	}
	return out
}

// String lists the operations as commands of nft.
func (b Batch) String() string {
	var s strings.Builder
	for _, step := range b.Parts() {
		if len(step.Ops) == 0 {
			continue
		}
		s.WriteString(step.Name)
		if step.Wait {
			s.WriteString(" (after a wait)")
		}
		s.WriteString(":\n")
		for _, op := range step.Ops {
			s.WriteString("\t" + strings.ReplaceAll(op.String(), "\n", "\n\t") + "\n")
		}
	}
	return s.String()
}

// standIn is the name of a base chain's temporary twin.
const standIn = ".standin"

// A planner sorts a patch into a batch. The lists are sorted by name, so that equal patches give
// equal batches.
type planner struct {
	have  *Ruleset
	patch Patch

	added     []*Chain // not there yet
	rewritten []*Chain // there, with other rules
	replaced  []*Chain // there, but to be a regular chain
	reseated  []*Chain // there, but to be a base chain elsewhere
	dropped   []*Chain // base chains that go
	removed   []*Chain // regular chains that go

	addedSets    []*Set
	replacedSets []*Set // there, but defined otherwise
	removedSets  []*Set
	changes      []setChange

	targets      map[Ref]bool    // what is deleted and created again
	changedRules map[string]bool // chains whose old rules aren't their new ones
	skips        skips
	fence        fence
	onlyNewKeys  bool // the switch only adds keys to verdict maps

	batch Batch
}

// Plan orders a patch against the ruleset that it changes. It changes neither.
func Plan(have *Ruleset, p Patch) Batch {
	pl := &planner{have: have, patch: p, onlyNewKeys: true}
	pl.sortChains()
	pl.sortSets()
	pl.noteTargets()
	pl.rewriteReferrers()
	pl.noteChangedRules()
	pl.skips = newSkips(pl)
	pl.fence = newFence(pl)
	pl.holdKeys()

	pl.prepare()
	pl.widen()
	pl.switchOver()
	pl.narrow()
	pl.finish()

	pl.wait()
	return pl.batch
}

// wait decides where the batch has to wait for packets under way. See skip.go for sets that are
// skipped by.
//
// Before the switch: a packet may have entered the hook before a base chain was added, and then
// never meets it. Or it has missed a guard that grew since, and looks up a map after that.
//
// Before the last transaction: a packet with old rules, or that has missed a guard which grew,
// must not look up the elements that this adds, and a packet that has not met a new base chain must
// still meet the old one. There is no wait where the switch only added keys of new pods: without
// its key a pod was denied, and no one else.
func (pl *planner) wait() {
	b := &pl.batch
	hooks := pl.hooksChange()
	mapBehindGuard, setBehindGuard := pl.changeBehind()
	othersLose := slices.ContainsFunc(b.Widen, func(op Op) bool { return !op.Set.Skip })
	before := len(b.Prepare) + len(b.Widen)
	b.WaitBeforeWiden = len(b.Widen) > 0 && slices.ContainsFunc(b.Prepare, func(op Op) bool {
		return op.Kind == SetElements && pl.have.Sets[op.Set.Name] != nil
	})
	b.WaitBeforeSwitch = before > 0 && len(b.Switch) > 0 && (hooks || mapBehindGuard)
	before += len(b.Switch)
	b.WaitBeforeNarrow = before > 0 && len(b.Narrow) > 0
	b.WaitBeforeFinish = len(b.Finish) > 0 &&
		(len(b.Switch) > 0 && !pl.onlyNewKeys || setBehindGuard || othersLose ||
			len(b.Narrow) > 0 || before > 0 && hooks)
}

// hooksChange reports whether other base chains judge afterwards, where there were some before.
func (pl *planner) hooksChange() bool {
	isBase := func(c *Chain) bool { return c.Base != nil }
	if len(pl.dropped)+len(pl.reseated) > 0 {
		return true
	}
	if !slices.ContainsFunc(pl.added, isBase) {
		return false
	}
	for _, c := range pl.have.Chains {
		if isBase(c) {
			return true
		}
	}
	return false
}

func (pl *planner) sortChains() {
	for _, name := range slices.Sorted(maps.Keys(pl.patch.Chains)) {
		old, want := pl.have.Chains[name], pl.patch.Chains[name]
		switch {
		case want == nil && old == nil:
		case want == nil && old.Base != nil:
			pl.dropped = append(pl.dropped, old)
		case want == nil:
			pl.removed = append(pl.removed, old)
		case old == nil:
			pl.added = append(pl.added, want)
		case !old.SameShape(want) && want.Base != nil:
			pl.reseated = append(pl.reseated, want)
		case !old.SameShape(want):
			pl.replaced = append(pl.replaced, want)
		case !old.Equal(want):
			pl.rewritten = append(pl.rewritten, want)
		}
	}
}

func (pl *planner) sortSets() {
	for _, name := range slices.Sorted(maps.Keys(pl.patch.Sets)) {
		old, sp := pl.have.Sets[name], pl.patch.Sets[name]
		switch {
		case sp == nil && old == nil:
		case sp == nil:
			pl.removedSets = append(pl.removedSets, old)
		case sp.Create != nil && old == nil:
			pl.addedSets = append(pl.addedSets, sp.whole())
		case sp.Create != nil && !old.SameShape(sp.Create):
			pl.replacedSets = append(pl.replacedSets, sp.whole())
		case old != nil:
			if change := newSetChange(old, sp); !change.empty() {
				pl.changes = append(pl.changes, change)
			}
		}
	}
}

// whole is the set to be created, with the patch's other changes.
func (sp *SetPatch) whole() *Set {
	if len(sp.Put) == 0 && len(sp.Remove) == 0 {
		return sp.Create
	}
	set := sp.Create.clone()
	set.update(sp)
	return set
}

func (pl *planner) noteChangedRules() {
	pl.changedRules = map[string]bool{}
	for _, list := range [][]*Chain{pl.rewritten, pl.replaced} {
		for _, c := range list {
			pl.changedRules[c.Name] = true
		}
	}
}

// prepare creates objects to which nothing refers yet. Base chains come last, so that all they use
// is complete before the first packet meets them.
func (pl *planner) prepare() {
	var ops, base []Op
	if len(pl.have.Chains)+len(pl.have.Sets) == 0 && len(pl.added)+len(pl.addedSets) > 0 {
		ops = append(ops, Op{Kind: AddTable})
	}
	for _, c := range pl.added {
		if c.Base == nil {
			ops = append(ops, Op{Kind: AddChain, Chain: c})
		}
	}
	for _, s := range pl.addedSets {
		ops = append(ops, Op{Kind: AddSet, Set: s})
		if !pl.leadsToTarget(s) {
			ops = append(ops, joinOps(s, members(s))...)
		}
	}
	for _, c := range pl.added {
		if c.Base != nil {
			base = append(base, Op{Kind: AddChain, Chain: c})
			base = append(base, pl.earlyRules(c)...)
			continue
		}
		ops = append(ops, pl.earlyRules(c)...)
	}
	for _, c := range pl.reseated {
		twin := pl.twin(c)
		base = append(base, Op{Kind: AddChain, Chain: twin})
		base = append(base, pl.earlyRules(twin)...)
	}
	for i := range pl.changes {
		ops = append(ops, pl.changes[i].prepare(pl.fence)...)
	}
	ops = append(ops, base...)
	pl.batch.Prepare = ops
}

// earlyRules are the rules of a new chain, unless they have to wait for what they refer to.
func (pl *planner) earlyRules(c *Chain) []Op {
	if pl.refersToTarget(c) {
		return nil
	}
	return ruleOps(c)
}

// twin is a copy of a base chain that has to be deleted and created again, since the kernel can't
// move it: the twin does its work meanwhile. Drops add up, so both together do no harm. The twin
// stays until the next read-back finds and removes it: if this batch deleted it, it might be gone
// for a packet that hasn't met the new chain.
func (pl *planner) twin(c *Chain) *Chain {
	twin := *c
	twin.Name += standIn
	for pl.have.Chains[twin.Name] != nil {
		twin.Name += standIn
	}
	return &twin
}

// switchOver changes the rules, and removes what is no longer allowed. NAT chains that go stop
// translating here: unlike drops, translations of an old chain and a new one don't add up, and the
// guards that keep packets out of the old one are about to lose elements.
func (pl *planner) switchOver() {
	var ops []Op
	for _, list := range [][]*Chain{pl.rewritten, pl.replaced} {
		for _, c := range list {
			ops = append(ops, Op{Kind: FlushChain, Chain: c})
		}
	}
	for _, c := range pl.dropped {
		if c.Base.Type == NATChain {
			ops = append(ops, Op{Kind: FlushChain, Chain: c})
		}
	}
	ops = append(ops, pl.releaseTargets()...)
	for i := range pl.changes {
		if !pl.skips.change || pl.changes[i].set.IsMap() { // others have left
			ops = append(ops, pl.changes[i].switchLeave(pl.fence)...)
		}
	}
	for _, s := range pl.replacedSets {
		ops = append(ops, Op{Kind: DeleteSet, Set: pl.have.Sets[s.Name]})
	}
	for _, c := range pl.replaced {
		ops = append(ops, Op{Kind: DeleteChain, Chain: c})
	}
	for _, c := range pl.replaced {
		ops = append(ops, Op{Kind: AddChain, Chain: c})
	}
	for _, s := range pl.replacedSets {
		ops = append(ops, Op{Kind: AddSet, Set: s})
		ops = append(ops, joinOps(s, members(s))...)
	}
	ops = append(ops, pl.lateOps()...)
	for _, c := range append(slices.Clone(pl.rewritten), pl.replaced...) {
		ops = append(ops, ruleOps(c)...)
	}
	if len(ops) > 0 {
		pl.onlyNewKeys = false
	}
	for i := range pl.changes {
		if !pl.skips.change || pl.changes[i].set.IsMap() {
			ops = append(ops, pl.changes[i].switchJoin(pl.fence)...)
		}
	}
	pl.batch.Switch = ops
}

// finish adds what is allowed from now on. That includes the end of base chains, which could only
// deny. Then it deletes objects to which nothing refers: sets before chains, because a map's
// elements refer to chains.
func (pl *planner) finish() {
	var ops []Op
	for i := range pl.changes {
		ops = append(ops, pl.changes[i].finish(pl.fence)...)
	}
	gone := append(append(slices.Clone(pl.dropped), pl.reseated...), pl.removed...)
	for _, c := range gone {
		ops = append(ops, Op{Kind: FlushChain, Chain: c})
	}
	for _, s := range pl.removedSets {
		ops = append(ops, Op{Kind: DeleteSet, Set: s})
	}
	for _, c := range gone {
		ops = append(ops, Op{Kind: DeleteChain, Chain: c})
	}
	for _, c := range pl.reseated {
		ops = append(append(ops, Op{Kind: AddChain, Chain: c}), ruleOps(c)...)
	}
	pl.batch.Finish = ops
	pl.batch.Twins = len(pl.reseated) > 0
}

func members(s *Set) []Member {
	list := make([]Member, 0, len(s.Elements))
	for _, e := range SortedElements(s.Elements) {
		list = append(list, Member{e, s.Elements[e]})
	}
	return list
}

// maxRules is the most rules that one operation adds to a chain.
const maxRules = 500

func ruleOps(c *Chain) []Op {
	var ops []Op
	for rules := range slices.Chunk(c.Rules, maxRules) {
		ops = append(ops, Op{Kind: AddRules, Chain: c, Rules: rules})
	}
	return ops
}

func joinOps(s *Set, list []Member) []Op {
	var ops []Op
	for part := range slices.Chunk(list, ChunkElements) {
		ops = append(ops, Op{Kind: SetElements, Set: s, Join: part})
	}
	return ops
}

func leaveOps(s *Set, list []Element) []Op {
	var ops []Op
	for part := range slices.Chunk(list, ChunkElements) {
		ops = append(ops, Op{Kind: SetElements, Set: s, Leave: part})
	}
	return ops
}
