// Package ruleset renders what one node has to enforce, the compiled policies of its pods and its
// part of the pod network, as the typed ruleset of package nft.
//
// # Model
//
// A [Renderer] follows a [cluster.Cluster]. It returns a whole ruleset once, and a patch for each
// set of changes after that:
//
//	endpoint   an entry of the dispatch maps and, where isolated, a pod chain
//	isolation  a profile for each tier: a chain of jumps, shared by pods with the same policies
//	rules      a policy chain for each policy and direction, or for many with one podSelector;
//	           those of a ClusterNetworkPolicy that passes stand in the chain of the tier
//	sets       an nftables set for each family; one of ranges for each of its contents
//
// The rest depends on the [Config], and not on pods: base chains, the chains for errors, for cut
// connections and for denials, and those of the pod [Network].
//
// The patches add up to what rendering from scratch gives. The Renderer remembers what it rendered
// for whom: see [Renderer.Origin] and [Renderer.Denied].
//
// All of it is pure: no kernel, no clock, no log, nothing of Kubernetes or of CNI. A Renderer isn't
// for concurrent use.
//
// # Not for
//
// Package policy decides what a policy means, and package nft how a patch reaches the kernel
// without a gap. The Renderer's owner decides when, and what to do where the kernel refuses it.
package ruleset
