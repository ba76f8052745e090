// Package names has the names of Sluice's objects in a node's kernel that several packages, or
// other programs of the node, have to know. Each name is spelled only here in the code. Names don't
// change, as an upgraded agent would leave objects with old names behind.
//
// Tests that show what an operator would type, or that a name never changes, repeat a name on
// purpose.
package names

// Table is the one nftables table, of family inet.
const Table = "sluice"

// These start the names of links. Nothing else on a node may start with one.
const (
	PodLink     = "slup"    // the host end of a pod's link
	ShapingLink = "slub"    // the device that shapes what a pod with a bandwidth sends
	TrialLink   = "slprobe" // the links of a probe of forwarding
	Tunnel      = "sluice." // the tunnel's device; its number follows
)

// PodLinks matches the host ends of pods' links in a rule of nftables.
const PodLinks = PodLink + "*"

// These are the protocols of our routes on a node, which show others that the routes are ours.
const (
	PodRoutes   = 83 // to the node's pods
	NodeRoutes  = 84 // to other nodes
	TrialRoutes = 85 // to what the trial links stand for
)
