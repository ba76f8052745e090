// Package policy holds the specs that say what NetworkPolicy means on a real cluster: a real API
// server and kubelet, real nodes, and kube-proxy's Services in between.
//
// The model: a world is a set of pods, and hosts that aren't pods, under short names. A cell is one
// connection in it, with what must become of it. Specs apply policies and hold every cell to its
// verdict. Verdicts come from the cases of test/cases, from package policy's evaluator fed with the
// objects as the API server stores them, and from expectations written by hand, so that neither is
// judged by itself alone.
//
// A denied connection has to time out: a policy drops in silence. Refusals of another kind, such as
// a reset by a pod that doesn't serve, are a failure of the spec as much as a connection that
// works.
//
// Not here: pods' first instructions (suite start), and trouble such as agents that die (suite
// life).
package policy
