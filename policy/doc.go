// Package policy says what one NetworkPolicy says: whom it isolates, and which flows its rules let
// through.
//
// # Model
//
// [Parse] turns a networking.k8s.io/v1 NetworkPolicy into a [Policy]: a subject selector and, for
// each direction that the policy governs, a [Section] of rules. What an API object leaves
// unreadable is dropped item by item and listed in [Policy.Problems]; it never widens what the
// policy allows. [PodFrom] and [NodeFrom] read what policies ask of pods and nodes.
//
// [Policy.Clauses] spells the rules as look-ups: a [Clause] refers to sets of addresses by what is
// in them ([Set]). Who that is at the moment, and what all policies together mean, is for package
// cluster.
//
// Policies belong to a [Tier], although today only [TierNetworkPolicy] has any:
// ClusterNetworkPolicy puts an Admin tier before it and a Baseline tier after it.
//
// # Not for
//
// Nothing that depends on which pods and nodes there are. No packets, clients, clocks or loggers.
// Kubernetes API types end here: the model uses net/netip, IP protocol numbers and package
// selector. How a verdict becomes an nftables rule is none of this package's business.
//
// Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
package policy
