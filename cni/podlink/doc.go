// Package podlink makes a pod's link in the kernel, keeps its host end as it was made, and says
// what differs from that.
//
// # Model
//
// A pod's link is a routed veth. The pod has its addresses alone (/32, /128) and default routes by
// way of 169.254.1.1 and fe80::1; the node has a route to each address of the pod. Both sides have
// permanent neighbours, so nothing is resolved on the link. The host end's name follows from the
// pod's name, and its MAC from the attachment, so that a late DEL of an old container leaves alone
// the link of a new one with the same pod name.
//
// The plugin wires a link ([Wire]) and compares both of its ends ([Differences]). The agent can't
// enter a pod's namespace; its [Keeper] looks after the host's end alone, where whatever somebody
// alters heals. The host's end is described once ([Wiring], and in hostend.go what follows from
// it): Wire applies the description to a new link, a Keeper applies what differs from it, and
// Differences says that in words. Wire takes nothing from others: a route that leads to a pod's
// address already belongs to a pod that lives, and is an error. A Keeper knows whose the address
// is, and replaces such a route.
//
// A [Keeper] gathers what there is, computes what should be from the attachments (pure functions,
// hostend.go and desired.go), and has package link apply the difference, in its own goroutine.
// Shaping, and the route that makes the unused addresses of the podCIDR unreachable, are the
// keeper's alone.
//
// # What it is not for
//
// It gives no addresses and remembers nothing on disk. It knows nothing of policy: who wires sees
// to it that a pod's policy is there first.
package podlink
