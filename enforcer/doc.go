// Package enforcer keeps one node's table in the kernel as the policies mean it, and is the only
// one that writes it.
//
// # Model
//
// One loop, [Enforcer.Run]. News comes by [Enforcer.Update], which changes the [Model], which is
// pure, and wakes the loop. The loop takes what has changed, has it rendered, and commits it:
//
//	commit     what changed, as much of it as fits into a short time (pace)
//	repair     what another program changed in the table is put right
//	refusals   one object that the kernel refuses is left out, and named
//	failing    a commit that fails is tried again, and reported
//
// Callers that wait for a commit return when it is in the kernel, or with the reason why it isn't:
// [Enforcer.Attach], [Enforcer.AwaitFirstCommit]. Other callers ask for an answer or for a
// snapshot. The lock stays within the package.
//
// Three helpers run beside the loop: a [Cutter], which ends established connections that policy
// denies now, [Departures], which forget the connections of addresses that pods have left, and a
// [DenialLog]. The loop reports its commits to the first two.
//
// # Not for
//
// What is to be in the kernel is worked out in packages policy and ruleset; how it gets there
// without a gap, in package nft. Objects of Kubernetes, and Events on them, are for package
// controllers: here are values, and callbacks.
package enforcer
