// Package table keeps the kernel's table `inet sluice` as its caller wants it: it is the only
// writer.
//
// # Model
//
// A [Table] has one desired ruleset. [Table.Apply] changes it by a patch and carries out what
// nft.Plan makes of that, [Table.Sync] makes the kernel's table what is wanted whatever is there,
// and [Table.Check] says in what it differs. After an error nobody knows what is installed: the
// Table is stale, and the next call reads the kernel back first.
//
// Where the kernel can, the table belongs to the Table's connection ([Table.WhyNotOwned]), so that
// nobody else changes it; what others change nevertheless is noticed ([Table.Watch]) and put right
// ([Table.Repair]). What the kernel refuses can be left out ([Table.LeaveOut]), so that one object
// doesn't keep all others from their changes. The counters of chains are read before the chains go
// ([Table.Tally]).
//
// # Not for
//
// What the rules mean. It does no packet filtering outside its table and doesn't touch, or wait
// for, other tables.
package table
