// Package cluster says what all policies mean in a cluster: whom they isolate on one node, which
// flows they let through, and whose an address is.
//
// # What a node enforces
//
// A [Cluster] is fed with namespaces, pods, nodes, policies and the attachments of one node, in any
// order. It keeps, incrementally, what that node has to enforce: the [Isolation] of each local
// endpoint, the rules that those endpoints use, and the members of every set that the rules refer
// to. [Cluster.Take] tells what changed since the last call. The end state does not depend on the
// order or number of the events that led to it.
//
// # What it means
//
// Three readers answer from the parsed policies, and from nothing that was compiled of them:
// [Cluster.Explain] for one flow and with the reason, [Judge] for many flows quickly, [Meaning] for
// whole classes of flows. Which rules match is decided in one place for all three.
//
// # Whose an address is
//
// What nodes say of themselves is weighed before anything is believed of it, and pods have only
// addresses that their nodes can have given them: docs/adr/0018-whose-address.md.
//
// # Not for
//
// No packets, clients, clocks or loggers, and no Kubernetes types.
package cluster
