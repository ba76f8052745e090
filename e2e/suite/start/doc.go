// Package start holds the specs about the first moments of a pod: a policy that exists holds from
// the pod's very first instruction on.
//
// The model: pods whose program begins by connecting, every 20 ms for a second, to where it must
// not get, and beside that to a control that it may reach. Half of them are kept in by a policy of
// their own (egress), half are kept out by a policy of those they connect to (ingress). What got
// through is counted at both ends: by the pods, and by the servers that they tried.
//
// Not here: what policies mean (suite policy), and starts while agents die (suite life).
package start
