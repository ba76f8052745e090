// Package cyclonus holds Sluice against cyclonus, a test suite for NetworkPolicy that others wrote
// (https://github.com/mattfenwick/cyclonus, MIT): its reading of the policies, and its generated
// cases.
//
// It is tests only, in a Go module of their own, so that cyclonus' dependencies decide nothing
// about the versions that Sluice and its other tests are built with
// (docs/adr/0016-outside-oracle.md).
//
// # Model
//
// The oracle: cyclonus' matcher and cluster.Cluster are given the same namespaces, pods and
// policies, and asked about the same new connections (cells: source, destination, port, protocol),
// over cyclonus' generated cases and over random clusters. Where cyclonus is known to be wrong,
// knownErrors says so, and a test shows that it still is, so that an exception goes when its reason
// does.
//
// The packets: cyclonus' interpreter runs its generated cases on a lab (package lab), by way of its
// interface to Kubernetes, which cluster implements: objects go to a real API server, and its
// probes become real connections between pods, over IPv4 and IPv6, on one node and across two.
//
// # Not for
//
// What cyclonus has no notion of: nodes, pods on the host's network, established connections, ICMP,
// Services (connections go to pods' addresses), and a pod that connects to itself, which cyclonus
// judges like any other and Kubernetes doesn't.
package cyclonus
