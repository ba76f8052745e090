// Package lab brings up a small Kubernetes cluster on one Linux machine, without containers, for tests of what Sluice does to real
// packets.
//
// # Model
//
// A Lab has a real etcd and kube-apiserver, and nodes that are network namespaces on a switch without an uplink. Beside the nodes
// on that underlay is a host named Outside, a client beyond the pod network. On each node runs the real sluice-agent, and
// a runner in the kubelet's place: it starts pods with the real CNI plugin, and in each pod one program that serves
// every containerPort (TCP, UDP, SCTP) in the place of the pod's containers; it probes readiness, reports status, and deletes.
// A scheduler binds pods round robin. There are no other controllers: no Deployments, no Services, no ServiceAccounts.
//
//	host:     etcd, kube-apiserver, the process that called Up
//	switch:   a bridge:  node1 | node2 | ... | outside
//	node1:    sluice-agent, a proxy to the API server on 127.0.0.1:6443, veths to its pods, routes to the other nodes' pods
//
// Places are named in one way everywhere: a pod as "namespace/name", a node by its name, and "outside".
//
// Faults: Node.KillAgent, Node.CutAPI, Lab.StopAPIServer, and whatever Lab.Do can do inside a place. The runner isn't
// affected by Node.CutAPI, only the agent is.
//
// Labs with different names don't share anything and may run side by side, in one process or several. All that a lab
// owns is in /run/sluice-lab/NAME, in namespaces whose names begin with "sluice-lab.NAME.", and in processes that end with the one that
// called Up, whatever ends that. So Down(name) cleans up after anything.
//
// View is what other processes can do with a lab, and works without the API server.
//
// It is not for production, for images, volumes or anything else a kubelet does, nor a measure of how fast Kubernetes is. It
// needs root, and a clone of this repository, whose programs it builds.
package lab
