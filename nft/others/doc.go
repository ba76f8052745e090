// Package others finds out what else on a node judges forwarded packets, and whether Sluice's own
// table sees them at all.
//
// In netfilter an accept ends one base chain, a drop ends the packet. However willing Sluice's
// table is, a packet that is forwarded also goes through everybody else's chains on the hook
// forward, and Docker, ufw and firewalld drop or reject there by default. So:
//
//   - Blockers reads the chains of a hook that drop whatever nothing in them accepted, of nftables
//     and of legacy iptables, and names them. On the hooks input and output such chains may keep
//     the nodes' tunnel from working, which others find out (overlay/reach).
//   - Probe sends a packet of its own through the node, in at one veth and out at another, and
//     tells whether it came through. It finds what can't be read off a chain's end, but can't name
//     it.
//   - Accepter puts a rule into such chains that accepts the pod network, keeps it there, and takes
//     it away again.
//   - BridgesBypass finds the bridges whose pods talk to each other without passing any chain on
//     the hook forward.
//
// It all works in the network namespace of the calling thread, needs NET_ADMIN and NET_RAW, and
// nothing but the kernel, with one exception: changing legacy iptables takes its program. What is
// read isn't loaded: asking for legacy iptables' table doesn't create it.
//
// It is not for the table `inet sluice`, which belongs to package nft and is never touched here,
// nor for chains on other hooks (prerouting, postrouting, ingress), of the bridge family, or of
// tables that only mark or translate. Of others' rules it understands where a chain's last one
// blocks and where they jump to, no more, and nothing but Accepter changes their tables.
package others
