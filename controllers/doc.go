// Package controllers turns Kubernetes objects into what the node's kernel
// shall hold.
//
// # Model
//
// Reconcilers are thin: they feed a [policy.Cluster] from the informers'
// caches and hand its changes to a [Renderer], a pure translator of the
// compiled policies into the typed ruleset of package nft:
//
//	endpoint   an entry of the dispatch maps and, where isolated, a pod chain
//	isolation  a profile: a chain of jumps, shared by all pods with the same policies
//	rules      a policy chain for each policy and direction
//	sets       an nftables set for each family
//
// The Renderer is incremental: its patches add up to what rendering from
// scratch gives.
//
// # Not for
//
// What a policy means is decided in package policy; how a patch reaches the
// kernel without a gap, in package nft.
package controllers
