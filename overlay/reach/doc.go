// Package reach finds out which peers answer through the tunnel: whether the underlay carries its
// packets there and back. A tunnel can be as it should be on the node while a firewall drops all of
// its packets.
//
// The question is an ARP request from the tunnel device to the peer's tunnel address and MAC, and
// the peer's kernel answers it. So it takes no port, no agent on the peer, and no particular
// version of one. It travels in an ordinary packet of the tunnel, which each firewall on the way
// judges; the request within is no IP packet, and meets no rules at the peer. Its sender address is
// 0.0.0.0, as in RFC 5227: then the kernel answers without looking for a way back, with any
// rp_filter and arp_filter, and changes no neighbour. Of the values of arp_ignore, only 8 (never
// answer) prevents the answer.
//
// Where the tunnel has no IPv4 addresses the question is a neighbour solicitation (RFC 4861). The
// peer's rules for incoming packets judge it, and this node's rules judge the answer: firewalls
// that drop neighbour discovery make a working tunnel look silent. So do tables of the family arp.
//
// A Rotation, which is pure, decides which peer is asked when, and what follows from answers; a
// Prober carries that out. An answer counts only if this peer was asked this, not long ago.
//
// It is not for peers that are reached without the tunnel: they aren't asked.
package reach
