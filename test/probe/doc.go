// Package probe asks "does this connection work?" with real packets, and answers on the other side.
//
// Clients: Connect tries once, Reach patiently, Open keeps a lasting Flow, Flood sends UDP as fast
// as it can, SendRaw, SendTCP and SendUDP send single packets. Servers: ServeTCP, ServeUDP,
// ListenSCTP, and a Sink that only counts. A server answers a query with one line: its name and the
// client's address as it sees it.
//
// Everything runs in the network namespace of the calling OS thread. Sockets stay in it: what a
// constructor returns may be used from anywhere. Names ("pod-a") are the caller's; nothing here
// resolves any.
//
// It is not a load generator, and not for production code: the lab and the tests use it. Linux
// only; raw packets, SCTP, ICMP and floods need CAP_NET_RAW.
package probe
