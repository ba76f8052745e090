// Package enforcer keeps one node's table in the kernel as the policies mean it, and is the only
// one that writes it.
//
// # Model
//
// One loop, [Enforcer.Run]. Who learns something tells it by [Enforcer.Update]; that changes the
// [Model], which is pure, and wakes the loop. The loop takes what has changed, has it rendered, and
// commits it:
//
//	commit     what changed, as much of it as fits into a short time (pace)
//	repair     what somebody else changed in the table is put right
//	refusals   one object that the kernel refuses is left out, and named
//	failing    a commit that fails is tried again, and told of
//
// Who waits for a commit gets an answer when it is in the kernel, or the reason why it isn't:
// [Enforcer.Attach], [Enforcer.AwaitFirstCommit]. Others ask for an answer or for a snapshot;
// nobody else holds the lock.
//
// Beside the loop, and told by it of commits, run a [Cutter], which ends established connections
// that policy has come to deny, [Departures], which forget those of addresses that pods have left,
// and a [DenialLog].
//
// # Not for
//
// What is to be in the kernel is worked out in packages policy and ruleset; how it gets there
// without a gap, in package nft. Objects of Kubernetes, and Events on them, are for package
// controllers: here are values, and functions that are told.
package enforcer
