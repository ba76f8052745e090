// Package policy says what one policy says: whom it selects, and what its rules do with which
// flows.
//
// # Model
//
// [Parse] turns a networking.k8s.io/v1 NetworkPolicy into a [Policy]: a subject selector and, for
// each direction that the policy governs, a [Section] of rules. What an API object leaves
// unreadable is dropped item by item and listed in [Policy.Problems]; it never widens what the
// policy allows. [ParseCluster] does the same for a ClusterNetworkPolicy. [PodFrom] and [NodeFrom]
// read what policies ask of pods and nodes.
//
// [Policy.Clauses] spells the rules as look-ups: a [Clause] refers to sets of addresses by what is
// in them ([Set]). Who that is at the moment, and what all policies together mean, is for package
// cluster.
//
// Policies belong to a [Tier]. NetworkPolicies isolate the pods that they select, and only allow.
// ClusterNetworkPolicies are asked before them (Admin) or after them (Baseline), in an order, and
// their rules allow, deny or pass.
//
// # Not for
//
// Nothing that depends on which pods and nodes there are. No packets, clients, clocks or loggers.
// Kubernetes API types end here: the model uses net/netip, IP protocol numbers and package
// selector. How a verdict becomes an nftables rule is none of this package's business.
//
// Sources: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
// and https://network-policy-api.sigs.k8s.io/reference/spec/
package policy
