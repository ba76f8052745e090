// Package plugin is the CNI plugin "sluice": what a container runtime executes, as root in the
// node's network namespace, for every verb.
//
// It knows nothing of the cluster. ADD asks the agent of the node (package cni says what they say
// to each other), and makes the pod's link when the agent has answered; the drawing of it is in
// package cni. It keeps nothing between two calls, and works where there is no agent as far as it
// can: DEL always does.
//
// # The other verbs
//
// CHECK looks at both ends of the link and asks the agent, and lists each difference: of the host's
// end, what the agent would restore. STATUS asks nobody: the agent leaves a heartbeat in the state
// directory, and only a node that never was ready since its boot, or whose agent has been silent
// for a minute, fails, because runtimes take all pods of such a node out of service. GC gives up
// what the runtime doesn't list, by the records. As most runtimes never call it, and lose a DEL now
// and then, the server also looks for pods that are gone by itself; in doubt, a pod lives.
//
// Of the error codes, ADD has 11 (try again) for whatever passes by itself, 4 and 7 for what was
// asked wrongly, 2 for capabilities in mode "policy", 101 for a host port that another pod has, and
// 102 for one that is the node's; CHECK 100 for differences; STATUS 50.
//
// In mode "policy", behind another plugin that wires the pods, ADD takes the addresses from
// prevResult, waits for the policy and passes prevResult on; nothing in the pod's namespace is
// touched by any verb.
//
// # What it is not for
//
// It takes no address and writes no record: that is the server's part. It only removes records, of
// pods whose DEL the agent doesn't answer.
package plugin
