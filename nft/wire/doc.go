// Package wire says values of package nft in nftables' netlink messages, and reads them from there.
//
// # Model
//
// A [Conn] is one connection. [Conn.Add] encodes operations of a plan, [Conn.Flush] sends what is
// queued as one transaction, and says of each refused message which object of the table it was
// about. [Conn.Read] dumps the table and decodes it into an [Installed]: the ruleset, and what else
// is there. A rule is read as its expressions in canonical text. Where that is the text of a wanted
// rule, the result has the wanted rule itself, so that equal things compare equal; everything else
// is an nft.Foreign.
//
// google/nftables encodes and decodes single expressions (package expr), and knows the numbers of
// types. Messages, transactions and dumps are made here, for what it can't say: see
// docs/adr/0009-nft-writes-its-own-messages.md.
//
// # Not for
//
// Which operations in which order is decided by nft.Plan, and what to do about an error by
// nft/table.
package wire
