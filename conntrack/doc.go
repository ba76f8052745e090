// Package conntrack reads and changes the kernel's table of connections (connection tracking,
// "conntrack") in one network namespace.
//
// # Model
//
// A Table is a netlink socket. Find lists the entries that a caller's function picks; Queries only
// save the kernel the copying of others, and never decide. An Entry has the tuples of both
// directions: the original one is what the opener of the connection sent, the reply one is what its
// answers look like before translation is undone. So the reply's source is the end that really
// answers, behind a Service for example, and the original source is the end that really asked,
// before masquerading.
//
// An entry can be deleted, and a bit of its label (128 bits that rules can match, see connlabel in
// iptables-extensions(8)) be set and cleared. This package changes nothing else of an entry, and
// makes none.
//
// Room for labels is part of an entry from its beginning, if some rule set labels then; an older
// entry has none (ErrNoRoom).
//
// # Costs
//
// The kernel walks through its whole hash table for every listing: 5 to 8 ms when it is empty, some
// 0.3 us for each entry that it passes, and 2 to 3 us for each that it copies. A filter by address
// saves the copying. For IPv6 many kernels have it inverted, which Find finds out.
//
// # Not for
//
// Events of connection tracking, expectations, and what is allowed: the caller decides that.
package conntrack
