// Package nflog reads what rules log to an NFLOG group: the kernel sends a copy of each logged
// packet's beginning by netlink (subsystem ULOG, see linux/netfilter/nfnetlink_log.h).
//
// The model: [Open] takes a group, [Reader.Run] calls back for each [Record]. A record is plain
// values: the rule's log prefix, the interfaces, and what the packet itself says. Anyone can send
// packets, so the parser takes any bytes, in bounded time and memory.
//
// It knows nothing of rules and policies, makes no rules, and isn't for packet capture: it asks for
// headers only, and counts but doesn't recover the records that the kernel can't deliver in time.
package nflog
