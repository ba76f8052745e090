package nft

// GenRuleset is for the tests that also need a kernel.
var GenRuleset = genRuleset
