// Package nft has the nftables table `inet sluice` as values, and decides how one state of it
// becomes another. It is pure. nft/table keeps the kernel's table as its caller wants it, by the
// messages of nft/wire.
//
// # Model
//
// A [Ruleset] is the whole content of the table: chains of rules, rules of statements, sets of
// elements. [Diff] compares two of them, and the [Patch] that results is ordered by [Plan] into up
// to five transactions. [Without] leaves the parts of a ruleset out that the kernel refuses.
//
// This package doesn't decide what is allowed, and knows nothing of Kubernetes. It doesn't touch
// other tables, nor wait for them. It is no general binding to nftables: its statements are those
// that Sluice needs. README.md has the hooks, and how to read a listing.
//
// # Why several transactions
//
// nftables commits a transaction as a whole, but a packet under way sees it in two parts. Its rules
// are those of the moment when it entered the base chain. The elements of sets and maps are those
// of the moment when it looks them up. So old rules can meet new elements, and this mixture can let
// a packet pass that both the old and the new state deny. [Plan] orders a patch so that this can't
// happen, and so that stopping between any two transactions allows nothing that both states deny:
//
//   - prepare makes new objects, to which nothing refers yet: sets with their elements, chains, and
//     last base chains, whose drops only add up. Guards (sets that are matched to drop) get their
//     new members.
//   - switch changes rules, changes verdict maps, and takes from sets what leaves them. It is
//     always one transaction.
//   - finish adds to sets what joins them, removes from guards what leaves them, ends base chains,
//     and deletes objects to which nothing refers any more.
//
// Sets that are matched to return, so that their members skip rules, change in two steps of their
// own, widen and narrow, before and after the switch: skip.go says why.
//
// If ranges of an interval set change their shape (10.0.0.0/8 becomes 10.0.0.0/9 and something
// else), the switch replaces the old range by what it has in common with the new ones.
//
// # Fences
//
// One conflict remains. The switch rewrites chain X, and leads a key of a verdict map to a chain
// from which X can be reached. A packet that entered before, and looks the key up after, goes the
// new way with X's old rules. If the old way and the new X deny it, only this mixture lets it pass.
// The same goes where X is before or after the lookup, rather than behind the new verdict. Such a
// key is fenced: until finish it drops (an existing key), or stays away (a new one; without a key,
// a packet is dropped at the end of its base chain). A key that accepts needs no fence when it
// changes: the old state allowed every packet that reached the map.
//
// # Translation
//
// NAT chains and NAT maps are planned like filter chains and verdict maps, but nothing is fenced. A
// rule that translates doesn't decide what is allowed: the filter chains judge the translated
// packet, each with its rules of that moment or later. So a packet of old rules and new elements is
// denied if both states deny it at its new place. A mixture can only lead a new connection
// elsewhere: to where the old state, the new state or neither leads it. The connection stays there,
// since the kernel translates by its first packet. A key that changes its target does so in the
// switch, where it is one transaction with the new target's own rules.
//
// Two versions of a chain don't add up in translations as they do in drops: one could translate
// what the other leaves alone. So the switch empties a NAT chain that goes, and finish deletes it.
//
// A set that keeps packets out of a translation should be a guard, looked up first in the base
// chain: then what both states leave alone is left alone throughout. Otherwise a connection that
// begins between switch and finish can keep the node's address for all its life, and another node
// would judge it by that.
//
// Rules that take packets out of connection tracking accept nothing either: an untracked packet
// isn't established, so policy judges it. Whoever accepts what is untracked has to know it by more.
//
// # Waiting
//
// All this holds for packets that see one transaction. A slow packet could see two, if the second
// followed at once. Where that would let it pass, [Batch] says so, and table.Table waits for
// packets under way, by an RCU grace period (about 10 ms; membarrier(2)). There is no wait for a
// pod that is added, or for elements that only join or only leave, but where a guard grows or a set
// to skip by changes.
//
// A guard that gets new members is such a case, although it only denies more. A packet that missed
// it before must not find later what the same batch allows: the old state may deny the packet by
// that alone, and the new one by the guard. So the switch waits where a map that changes is looked
// up after a miss of the guard, and finish where any set is.
//
// # What the promise needs, and where it ends
//
// The rules have to be made so that fewer members of a set, unless it is a guard, and fewer keys of
// a verdict map never allow more: sets are matched to accept, guards to drop, a packet that finds
// no key, or returns from a dispatch, meets only dispatches for other packets, and a drop; no
// dispatch is behind the match of a set or behind another dispatch, unless all that it leads to
// drops. Sets to skip by are matched to return, and only behind a dispatch. Jumps
// only, no goto: a chain that is empty for a packet under way then ends in that drop.
//
// The promise is for each batch. The next one doesn't wait for packets under way since before the
// last: one whose processor is taken away for so long, in the middle of a base chain, can meet what
// one batch took away together with what the next one adds.
//
// It is also for each base chain. A packet may go through egress before a transaction and
// through ingress after it: each chain judged it as of one moment, but not both as of the same;
// nftables offers no other way. A new version of a base chain must have the old one's priority: the
// kernel then puts it behind the old one, so that no packet meets the new one before a switch and
// the old one after it.
package nft
