// Package overlay is the pod network between nodes: it makes each node's pod addresses reachable
// from every other node, through a VXLAN tunnel or by plain routes over the underlay, the network
// that the nodes themselves are on.
//
// The model is level-triggered. The desired state of a node is a pure function of its inputs
// (Desired: the node's name, all Nodes, the Config, and the node's links); the actual state is a
// dump of what is in the kernel and ours; Diff is the ordered list of changes from one to the
// other. A Reconciler has package link repeat that whenever its inputs or the kernel's state
// change, until nothing differs, so whatever was deleted or altered by hand comes back. A Plan
// prints as the commands a person would type.
//
// A node has one tunnel device, sluice.<VNI>, on one underlay family; it carries pods of both
// families. Beyond net-conf.json, nothing about it has to be agreed: every node derives the same
// family from the Nodes, the device's MAC follows from the node's name, its addresses are the
// network addresses of the node's pod CIDRs. For each peer there is a permanent neighbour (tunnel
// address to MAC), a forwarding database entry (MAC to underlay address), and then a route. They
// are removed in the reverse order.
//
// What is ours is known by the device's name and by the route protocol (RouteProtocol). Everything
// on the device that isn't desired is removed; other devices, and routes of other protocols, are
// left alone, except that a route to a peer's pods replaces any other with the same destination and
// metric. The node's switches for forwarding are set, with what uplinks need then (sysctl.go).
//
// The package also reads net-conf.json and writes subnet.env, as flannel does.
//
// It is not for: pods' own links and routes (cni/podlink), packet filtering, masquerading and
// anti-spoofing (ruleset), or anything of Kubernetes: callers turn their Node objects into Nodes.
package overlay
