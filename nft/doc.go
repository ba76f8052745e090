// Package nft has the nftables table `inet sluice` as values, and decides how one state of it
// becomes another. It is pure; what speaks to the kernel is below: nft/table keeps the table as its
// caller wants it, by the messages of nft/wire.
//
// # Model
//
// A [Ruleset] is the whole content of the table: chains of rules, rules of statements, sets of
// elements. [Diff] compares two of them, and the [Patch] that results is ordered by [Plan] into up
// to three transactions. [Without] makes the best of a ruleset of which the kernel refuses a part.
//
// What the rules mean is none of this package's business: it knows nothing of Kubernetes, and
// doesn't decide what is allowed. It does no packet filtering outside its table and doesn't touch,
// or wait for, other tables. It isn't a general binding to nftables either: the statements are
// those that Sluice needs. README.md has the hooks, and how to read a listing.
//
// # Why three transactions
//
// nftables commits a transaction as a whole, but a packet under way sees it in two parts. Its rules
// are those of the moment in which it entered the base chain. The elements of sets and maps are
// those of the moment in which it looks them up. So old rules can meet new elements, and between
// them let something pass that both the old and the new state deny. [Plan] orders a patch so that
// this can't happen, and so that stopping between any two transactions allows nothing that both
// states deny:
//
//   - prepare makes what nothing refers to yet: new sets with their elements, new chains, last of
//     all base chains, whose drops only add up. Guards (sets that are matched to drop) get their
//     new members.
//   - switch changes rules, changes verdict maps, and takes from sets what leaves them. It is
//     always one transaction.
//   - finish adds to sets what joins them, lets guards forget what leaves them, ends base chains,
//     and deletes what nothing refers to any more.
//
// A range of an interval set that is written differently afterwards (10.0.0.0/8 becomes 10.0.0.0/9
// and something else) keeps what it has in common with the new ranges: the switch replaces it by
// the common part.
//
// # Fences
//
// One conflict remains. The switch rewrites chain X, and leads a key of a verdict map to a chain
// from which X can be reached. A packet that entered before, and looks the key up after, goes the
// new way with X's old rules. If the old way and the new X deny it, nothing but this mixture lets
// it pass. The same goes where X isn't behind the new verdict, but before or after the lookup. Such
// a key is fenced: until finish it drops (an existing key), or stays away (a new one; without a
// key, a packet is dropped at the end of its base chain). A key that accepts needs no fence when it
// changes: the old state allowed whatever came as far as the map.
//
// # Translation
//
// NAT chains and NAT maps are planned like filter chains and verdict maps, but nothing is fenced. A
// rule that translates has no say in what is allowed: the filter chains judge what a packet has
// become, each with its rules of that moment or later. So whatever old rules and new elements make
// of a packet, what both states deny at its new place is denied. What a mixture can do is to lead a
// new connection to where the old state, the new state or neither leads it; and since the kernel
// asks only for the first packet, the connection stays there. A key that changes its target does so
// in the switch, where it is one transaction with the new target's own rules.
//
// Translations of two versions of a chain don't add up as drops do: one could translate what the
// other leaves alone. So a NAT chain that goes is emptied in the switch, and deleted in finish.
//
// A set that keeps packets out of a translation should be a guard, looked up first in the base
// chain: then what both states leave alone is left alone throughout. Otherwise a connection that
// begins between switch and finish can get the node's address for all its life, and another node
// would judge it by that.
//
// Rules that take packets out of connection tracking accept nothing either: an untracked packet
// isn't established, so it is judged by itself.
//
// # Waiting
//
// All that holds for packets that see one transaction happen. A packet could be so slow as to see
// two, if the second followed at once. Where that would be a way through, [Batch] says that packets
// under way have to be waited for, and table.Table waits for an RCU grace period (about 10 ms;
// membarrier(2)). A pod that is added, or elements that join or leave, wait for nothing.
//
// # What the promise needs, and where it ends
//
// The rules have to be made so that fewer members of a set, unless it is a guard, and fewer keys of
// a verdict map never allow more: sets are matched to accept, guards to drop, what finds no key or
// returns from a dispatch meets nothing but other dispatches, for other packets, and a drop. Jumps
// only, no goto: a chain that is empty for a packet under way then ends in that drop.
//
// The promise is made for each base chain. A packet that goes through egress before a transaction
// and through ingress after it was judged by each of the two at one time, but not by both at the
// same time; nftables has no way to do otherwise. A new version of a base chain must have the old
// one's priority: the kernel then puts it behind the old one, so that a packet can't meet the new
// one before and the old one after a switch.
package nft
