// Package names is what Sluice calls its things in a node's kernel, where several packages or other
// programs of the node have to know: each name is spelled here and nowhere else in the code.
// Another name would make an upgraded agent leave behind what the one before made, so they don't
// change.
//
// Tests that show what a person would type, or that a name never changes, spell it once more on
// purpose.
package names

// Table is the one nftables table, of family inet.
const Table = "sluice"

// These start the names of links. Nothing else on a node may start with one.
const (
	PodLink     = "slup"    // the host end of a pod's link
	ShapingLink = "slub"    // the device through which goes what a pod with a bandwidth sends
	TrialLink   = "slprobe" // the links that see what becomes of a forwarded packet
	Tunnel      = "sluice." // the tunnel's device; its number follows
)

// PodLinks matches the host ends of pods' links in a rule of nftables.
const PodLinks = PodLink + "*"

// These are the protocols of the node's routes, by which everybody sees who put them there.
const (
	PodRoutes   = 83 // to the node's pods
	NodeRoutes  = 84 // to other nodes
	TrialRoutes = 85 // to what the trial links stand for
)
