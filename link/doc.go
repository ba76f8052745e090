// Package link keeps a part of a network namespace as it should be: links, and the sysctls,
// addresses, neighbours, forwarding entries and routes on them.
//
// # Model
//
// A [State] is a set of items. Each item is a value that says how one thing in the kernel is or
// should be, and knows how to add and remove it. A key tells things of one kind apart. [Diff] is
// the pure part: the ordered changes from an actual state to a desired one. [Kernel.Apply] makes
// them. A [Loop] calls a pass whenever the kernel notifies of a change that concerns its owner, or
// a tick comes; [Converge] repeats the rounds of a pass until nothing differs. So what somebody
// else alters heals.
//
// The items of this package are what several owners have in common: [Sysctl], [Address],
// [Neighbour], [Forward], [Route]. Owners bring items of their own for the links themselves, as
// these have little in common: package overlay has a tunnel, package cni/podlink the host end of a
// pod's link and what shapes it. An owner knows its things by names of links and by a route
// protocol, and compares nothing else.
//
// A dump that the kernel interrupts is repeated ([Whole]): half of one would look like removals.
//
// # Not for
//
// What should be: that is the owners'. Packet filters are package nft's.
//
// Sources: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h.
package link
