// Package plugin is the CNI plugin "sluice", which a container runtime executes, as root in the
// node's network namespace, for every verb.
//
// It knows nothing of the cluster. ADD asks the agent of the node, and makes the pod's link when
// the agent has answered; package cni has the protocol, and a drawing. The plugin keeps nothing
// between two calls. Without an agent it does what it can: DEL always works.
//
// # The other verbs
//
// CHECK looks at both ends of the link, asks the agent, and lists each difference; at the host's
// end, those that the agent would restore. STATUS reads the heartbeat that the agent leaves in the
// state directory. It fails only on a node that was never ready since its boot, or whose agent has
// been silent for a minute, as runtimes then take all pods of the node out of service. GC removes
// the recorded attachments that the runtime doesn't list. Most runtimes never call GC, and lose a
// DEL now and then, so the server also looks for pods that are gone; in doubt, a pod lives.
//
// Of the error codes, ADD has 11 (try again) for errors that go away, 4 and 7 for invalid requests,
// 2 for capabilities in mode "policy", 101 for a host port that another pod has, and 102 for one
// that is the node's; CHECK 100 for differences; STATUS 50.
//
// In mode "policy", behind another plugin that wires the pods, ADD takes the addresses from
// prevResult, waits for the policy and passes prevResult on; nothing in the pod's namespace is
// touched by any verb.
//
// # What it is not for
//
// The server, not the plugin, takes addresses and writes records. The plugin only removes records:
// those of pods whose DEL the agent doesn't answer.
package plugin
