// Package cni is what the CNI plugin "sluice" and the server in the node's agent share. Together
// they put pods on the network of a node. The package has the [Attachment], the protocol between
// the two, and the files of the state directory that both read.
//
// # Rooms
//
//	cni           values, protocol, client of the socket, records, ledger and heartbeat
//	cni/plugin    the verbs of the plugin: a process in the node's network namespace for each call
//	cni/server    the agent's side: the socket, addresses, what is attached, the reaper
//	cni/podlink   a pod's link in the kernel: wires it, compares it, and keeps the host's end as
//	              it should be; used by both
//	cni/install   puts the plugin and its network configuration on a node, and takes them off
//
// The plugin and the server import podlink and cni, and never each other; cni imports none of its
// rooms.
//
// # Model
//
// The plugin is a short-lived process that the container runtime starts, as root in the node's
// network namespace, for every verb (https://github.com/containernetworking/cni/blob/main/SPEC.md,
// versions 0.4.0 to 1.1.0). It knows nothing of the cluster. The agent does, and may not enter a
// pod's namespace. So they share the work:
//
//	runtime  plugin                        server (agent)             enforcer (agent)
//	  | ADD    |                              |                          |
//	  |------->| deletes a stale link         |                          |
//	  |        |------- POST /v1/add -------->| takes addresses,         |
//	  |        |                              | writes a record          |
//	  |        |                              |-------- Attach --------->| waits until the pod's
//	  |        |                              |<-------------------------| policy is in the kernel
//	  |        |<- addresses, names, MACs, ---|                          |
//	  |        |   MTU                        |                          |
//	  |        | makes the veth, wires both   |                          |
//	  |        | ends, waits until they carry |                          |
//	  |<-------| packets                      |                          |
//
// A pod has no link before its policy is in the kernel, so it can't send or get anything that its
// policy denies. When a step fails, the plugin undoes all, and answers the runtime "try again": a
// failed ADD leaves no link, no taken address, no record and no dispatch.
//
//	| DEL    |                              |                          |
//	|------->|------- POST /v1/del -------->| removes the record, sets |
//	|<-------|<-----------------------------| the link down            |
//	|        |                              |-------- Detach --------->| takes the dispatch and
//	|        |                              |                          | the host ports out of
//	|        |                              |<-------------------------| the kernel
//	|        |                              | has connection tracking forget the addresses,
//	|        |                              | lets these cool down, removes the link
//
// The steps after DEL's answer take the kernel some 30 ms. Only requests that need what the pod had
// wait for them.
//
// An [Attachment] is what ADD makes: one interface of one container. A file in the state directory
// records each, and these files are the truth: the server reads them when it starts, and drops an
// attachment whose file is gone. So DEL works without the server, by removing the link and the
// file. Addresses in use follow from the records; besides, only the last given address and the
// cooling addresses are kept. A reboot empties the node of pods, and the state directory too: it is
// on tmpfs, and elsewhere files of another boot don't count.
//
// The plugin and the agent are never upgraded at one moment. Their protocol has its version in the
// path; another version is refused with "try again later".
//
// # What it is not for
//
// It decides nothing about policy, and has no Kubernetes client: the caller gives the ranges of
// addresses, and an enforcer decides about policy. Routes between nodes, the node's own sysctls and
// masquerading belong to the overlay.
package cni
