// Package lab brings up a small Kubernetes cluster on one Linux machine, without containers, for
// tests of what Sluice does to real packets.
//
// # Model
//
// A Lab has a real etcd and kube-apiserver, and nodes that are network namespaces on a switch
// without an uplink, or on two with a router between. Beside the nodes on that underlay is a host
// named Outside, a client beyond the pod network. On each node runs the real sluice-agent, which
// makes the pod network that Options ask for, and package kubelet in the place of kubelet and
// container runtime: it starts pods with the CNI configuration that the agent leaves and the real
// CNI plugin, and in each pod one program that serves every containerPort (TCP, UDP, SCTP) in the
// place of the pod's containers; it probes readiness, reports the status of pods and node, and
// deletes. A scheduler binds pods round robin, and deleted namespaces are emptied. There are no
// other controllers: no Deployments, no Services, no ServiceAccounts.
//
//	host:     etcd, kube-apiserver, the process that called Up
//	switch:   bridges:  node1 | node3 | ... | outside      node2 | node4 | ...
//	node1:    sluice-agent, a proxy to the API server on 127.0.0.1:6443, veths to its pods,
//	          what carries packets to the other nodes' pods
//
// Nothing of the pod network is the lab's own, except that Outside has routes to the pods by way of
// their nodes. With Options.NoAgent there is no agent, and the lab makes the routes between nodes.
//
// Places are named in one way everywhere: a pod as "namespace/name", a node by its name, and
// "outside".
//
// Faults and changes: Node.KillAgent, Node.CutAPI, Node.Reboot, Node.SetAddress, Node.SetPodCIDRs,
// Lab.AddNode, Lab.RemoveNode, Lab.CreateNodeObjects, Lab.StopAPIServer, View.SetNetConf, and
// whatever View.Do can do inside a place. The kubelet isn't affected by Node.CutAPI, only the agent
// is. View.Capture looks at packets.
//
// Lab.Store puts objects into etcd, past the API server: for clusters of many.
//
// Labs with different names don't share anything and may run side by side, in one process or
// several. All that a lab owns is in /run/sluice-lab/NAME, in namespaces whose names begin with
// "sluice-lab.NAME.", and in processes that end with the one that called Up, whatever ends that. So
// Down(name) cleans up after anything.
//
// View is what other processes can do with a lab, and works without the API server.
//
// Its parts are rooms of their own: namespace, process, controlplane, proxy, kubelet, capture,
// wait. None of them knows a Lab.
//
// It is not for production, for images, volumes or anything else a kubelet does, nor a measure of
// how fast Kubernetes is. It needs root, and a clone of this repository, whose programs it builds.
package lab
