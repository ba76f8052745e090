// Package security tests what Sluice keeps from whom who doesn't play by the rules, in labs with
// more than one node: packets with another's address, tunnel packets made by hand, forged
// neighbours, and addresses and ports that outlive their owner.
//
// Each test has its control: the same packets arrive when nothing is forged, or nothing stops them.
//
// It has no code of its own, only tests. The same rules, one by one, are tested in package
// controllers; here the whole of what runs on nodes makes them.
package security
