// Package cni puts pods on the network of a node: the verbs of the CNI plugin "sluice", and the server in the node's agent that
// the plugin asks.
//
// # Model
//
// The plugin is a short-lived process that the container runtime starts, as root in the node's network namespace, for every verb
// (https://github.com/containernetworking/cni/blob/main/SPEC.md, versions 0.4.0 to 1.1.0). It knows nothing of the cluster. The agent does,
// and may not enter a pod's namespace. So they share the work:
//
//	runtime        plugin                               server (agent)                      enforcer (agent)
//	  | ADD          |                                     |                                   |
//	  |------------->| deletes a stale link of the name    |                                   |
//	  |              |------------ POST /v1/add ---------->| takes addresses, writes a record  |
//	  |              |                                     |-------------- Attach ------------>| waits until the pod's
//	  |              |                                     |<----------------------------------| policy is in the kernel
//	  |              |<- addresses, names, MACs, MTU ------|                                   |
//	  |              | makes the veth, wires both ends,    |                                   |
//	  |<-------------| waits until they carry packets      |                                   |
//
// A pod has no link before its policy is in the kernel, so it can't send or get anything that its policy denies. When any step
// fails, the plugin undoes all, and the runtime is told to try again: a failed ADD leaves no link, no address taken, no record and
// no dispatch.
//
//	| DEL          |                                     |                                   |
//	|------------->|------------ POST /v1/del ---------->| removes the record, sets the      |
//	|<-------------|<------------------------------------| link down                         |
//	|              |                                     |-------------- Detach ------------>| takes the dispatch and the
//	|              |                                     |<----------------------------------| host ports out of the kernel
//	|              |                                     | has connection tracking forget the addresses, lets these cool
//	|              |                                     | down, removes the link
//
// What comes after DEL's answer takes the kernel some 30 ms, and is waited for by whoever needs what the pod had, and by nobody else.
//
// An [Attachment] is what ADD makes: one interface of one container. A file in the state directory records each, and these files
// are the truth: the server reads them when it starts, and drops an attachment whose file is gone. So DEL works without the server,
// by removing the link and the file. Addresses in use follow from the records; beside them only the last given address and those that cool
// down are kept. A reboot empties the node of pods, and the state directory too: by being on tmpfs, or else because files of another boot don't
// count.
//
// A pod's link is a routed veth. The pod has its addresses alone (/32, /128) and default routes by way of 169.254.1.1 and fe80::1; the
// node has a route to each address of the pod. Both sides have permanent neighbours, so nothing is resolved on the link. The host
// end's name follows from the pod's name, and its MAC from the attachment, so that a late DEL of an old container leaves alone
// the link of a new one with the same pod name.
//
// # The other verbs
//
// CHECK looks at both ends of the link and asks the agent, and lists each difference. STATUS asks nobody: the agent leaves a
// heartbeat in the state directory, and only a node that never was ready since its boot, or whose agent has been silent for a minute,
// fails, because runtimes take all pods of such a node out of service. GC gives up what the runtime doesn't list, by the records. As most
// runtimes never call it, and lose a DEL now and then, the server also looks for pods that are gone by itself; in doubt, a pod lives.
//
// Of the error codes, ADD has 11 (try again) for whatever passes by itself, 4 and 7 for what was asked wrongly, 2 for capabilities in mode
// "policy", 101 for a host port that another pod has, and 102 for one that is the node's; CHECK 100 for differences; STATUS 50.
//
// In mode "policy", behind another plugin that wires the pods, ADD takes the addresses from prevResult, waits for the policy and passes
// prevResult on; nothing in the pod's namespace is touched by any verb.
//
// The plugin and the agent are never upgraded at one moment. Their protocol has its version in the path; another version is
// refused with "try again later".
//
// # What it is not for
//
// It decides nothing about policy, and knows no Kubernetes client: the addresses' ranges come from the caller, and an [Enforcer]
// speaks for policy. Routes between nodes, the node's own sysctls and masquerading belong to the overlay.
package cni
