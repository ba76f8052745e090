// Package reach finds out which peers answer through the tunnel: whether the underlay carries its
// packets there and back. Everything about a tunnel can be as it should be on the node, and a
// firewall drop all of it.
//
// The question is an ARP request from the tunnel device to the peer's tunnel address and MAC, and
// the peer's kernel answers it. So it takes no port, no agent on the peer, and no particular
// version of one. What carries it is a packet of the tunnel as any other, judged by each firewall
// on the way; the request within is no IP packet, and meets no rules at the peer. Its sender
// address is 0.0.0.0, as in RFC 5227: then the kernel answers without looking for a way back,
// whatever rp_filter and arp_filter say, changes no neighbour, and of the values of arp_ignore only
// 8 (never answer) keeps it from doing so.
//
// Where the tunnel has no IPv4 addresses it is a neighbour solicitation (RFC 4861), which the
// peer's rules for what comes in judge, and this node's rules the answer: firewalls that drop
// neighbour discovery make a working tunnel look silent. So do tables of the family arp.
//
// A Rotation, which is pure, decides who is asked when, and what follows from answers; a Prober
// carries that out. An answer counts only if this peer was asked this, not long ago.
//
// It is not for peers that are reached without the tunnel: nobody asks them.
package reach
