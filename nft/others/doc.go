// Package others finds out which other tables of a node judge forwarded packets, and whether the
// packets pass Sluice's own table at all.
//
// In netfilter an accept ends one base chain, a drop ends the packet. A forwarded packet that
// Sluice's table accepts also goes through all other chains on the hook forward, where Docker, ufw
// and firewalld drop or reject by default. So:
//
//   - Blockers names the chains of a hook that drop what none of their rules accepted, in nftables
//     and in legacy iptables. On the hooks input and output such chains may block the nodes'
//     tunnel, which package overlay/reach finds out.
//   - TryForwarding sends a packet of its own through the node, in at one veth and out at another,
//     and reports whether it came through. So it also finds what blocks before a chain's end, but
//     can't name it.
//   - Accepter puts a rule into such chains that accepts the pod network, keeps it there, and
//     removes it again.
//   - BridgesBypass finds the bridges whose pods talk to each other without passing any chain on
//     the hook forward.
//
// All of this works in the network namespace of the calling thread, and needs NET_ADMIN and
// NET_RAW. It needs only the kernel, with one exception: changing legacy iptables takes its
// program. Reading loads nothing: a question about a table of legacy iptables doesn't create it.
//
// The table `inet sluice` belongs to package nft, and is never touched here. Not covered are chains
// on other hooks (prerouting, postrouting, ingress), of the bridge family, or of tables that only
// mark or translate. Of others' rules it understands only a chain's last one, if that blocks, and
// jumps. Only Accepter changes other tables.
package others
