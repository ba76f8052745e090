package packetworld

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
)

// CutBit is the bit of connections' labels that says which are cut, by default.
var CutBit = (&ruleset.Config{}).CutBit()

// The names of some objects, as they are in the kernel.

// VethMap dispatches to the pods that are ours, by address and veth; family is v4 or v6.
func VethMap(d policy.Direction, family string) string {
	return nft.Name("dispatch", d.String(), "veth", family)
}

// PolicyChain has the rules of a policy that isn't merged with others.
func PolicyChain(k policy.Key, d policy.Direction) string {
	return nft.Name("policy", k.Namespace, k.Name, d.String())
}

// ProfileChain jumps to such a chain alone, for the pods that have no other.
func ProfileChain(k policy.Key, d policy.Direction) string {
	sum := sha256.Sum256([]byte(k.String() + "\n"))
	return nft.Name("profile", hex.EncodeToString(sum[:8]), d.String())
}

// BaseChain is one of the chains on the kernel's hooks, in its current shape.
func BaseChain(name string) string { return nft.Name(name, "1") }
