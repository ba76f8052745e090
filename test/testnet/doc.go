// Package testnet builds small networks out of network namespaces and asks "does this connection
// work?" with real packets.
//
// The model: a Node is a namespace that forwards, as a Kubernetes node does. Behind it are Hosts:
// pods on routed veths (Pod), pods on a bridge (BridgedPod), machines beyond the pod network
// (Outside), and the node itself (Node.Host). A Host serves (ServeTCP, ServeUDP, ServeSCTP, Sink)
// and connects (Connect, MustReach, MustNotReach, Open, Flood, SendRaw), with what package probe
// has for that, in the host's namespace. Every packet between two hosts crosses the node's
// namespace, so rules installed there (Node.NSFd, Node.Do, Node.Nft) judge it.
//
// A Space is a bare namespace, in which commands run.
//
// A denial only means something next to its control: first MustReach without the rule, then
// MustNotReach with it.
//
// Namespaces live by file descriptors alone. Nothing is mounted or named, so nothing remains, even
// after a killed test. Nodes are independent of each other; tests with a node each may run in
// parallel. Methods of a Host are safe for concurrent use, except Remove. Linux only; without root,
// NewNode skips the test.
//
// It is not for production code: only _test files import it. It has no links between nodes, no name
// resolution and no clock.
package testnet
