// Package preflight finds out whether Sluice can work on a node before it is put there, and on a
// node where it doesn't: by what the kernel, the files and others' rules say, without a cluster.
//
// # Model
//
// A check has a name and gives one [Result]: pass, warn (it works, or may, but somebody should
// know) or fail (Sluice doesn't work, or isn't safe, until that is mended), with what was found and
// the remedy. [Run] does all of them, in an order in which earlier ones explain later ones. Each
// check is a reader, thin, and a function that judges what was read.
//
// Nothing on the node is changed: what the kernel can do is asked by requests that it has to check
// and may not carry out (a transaction or a link that it refuses whatever it has, a socket that is
// closed at once). It may load modules for them, as it would for the agent.
//
// All is of the network namespace of the calling thread. What others named is made printable.
//
// What an agent finds out anyway is asked of the same code: package overlay, nft/table, nft/others
// and cni/install.
package preflight
