// Package policy holds the meaning of NetworkPolicy: which pods a policy
// isolates, and which flows it lets through.
//
// # Model
//
// [Parse] turns one networking.k8s.io/v1 NetworkPolicy into a [Policy]: a
// subject selector and, for each direction the policy governs, a [Section] of
// rules. What an API object leaves unreadable is dropped item by item and
// listed in [Policy.Problems]; it never widens what the policy allows.
//
// A [Cluster] is fed with namespaces, pods, nodes, policies and the
// attachments of one node, in any order. It keeps, incrementally, what that
// node has to enforce: the [Isolation] of each local endpoint, the sections
// those endpoints use, and the members of every set the sections refer to.
// [Cluster.Take] tells what changed since the last call. The end state does
// not depend on the order or number of the events that led to it.
//
// [Cluster.Explain] answers for one flow whether it is allowed, by which
// policy and rule, or who isolates and what came nearest. It reads the same
// parsed policies, but evaluates selectors directly rather than through the
// incremental index.
//
// Verdicts are kept as an ordered list of tiers ([Isolation]) although today
// only [TierNetworkPolicy] has policies: ClusterNetworkPolicy puts an Admin
// tier before it and a Baseline tier after it.
//
// # Not for
//
// No packets, clients, clocks or loggers. Kubernetes API types end here: the
// model uses net/netip, IP protocol numbers and package selector. How a
// verdict becomes an nftables rule is none of this package's business.
//
// Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
package policy
