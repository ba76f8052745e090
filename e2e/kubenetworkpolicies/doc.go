// Package kubenetworkpolicies holds Sluice's reading of ClusterNetworkPolicies, beside
// NetworkPolicies, against that of kube-network-policies
// (https://sigs.k8s.io/kube-network-policies, Apache 2.0), which evaluates them packet by packet.
//
// It is tests only, in a Go module of their own, so that the other project's dependencies decide
// nothing about the versions that Sluice and its other tests are built with
// (docs/adr/0016-outside-oracle.md).
//
// # Model
//
// A random cluster of pods, namespaces and policies of both kinds, such as an API server accepts,
// is given to both, and both are asked about the same new connections: between all pods, and with
// hosts that are none, at each edge of networks and ports. What the other one has wrong, or doesn't
// know, isn't drawn: knownErrors lists it, and a test shows that it is still so.
//
// # Not for
//
// What one of the two has no notion of: peers by nodes and by domain names, ICMP, which node a pod
// is on, pods of the host's network and pods that connect to themselves, addresses that several
// pods or nodes claim, and established connections.
package kubenetworkpolicies
