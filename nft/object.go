package nft

import (
	"cmp"
	"errors"
	"fmt"
)

// An Object names a part of the table that the kernel can refuse by itself: a chain with its rules,
// a set, or an element of a set.
type Object struct {
	Chain   string
	Set     string
	Element Element // zero: the set itself
}

func (o Object) String() string {
	switch {
	case o.Chain != "":
		return "chain " + o.Chain
	case o.Element != Element{}:
		return "an element of set " + o.Set
	}
	return "set " + o.Set
}

// A RefusedError is the error of a transaction that the kernel refused, where it is known because
// of which objects. It wraps ErrRefused, unless the transaction was never sent. Nothing of the
// transaction happened.
type RefusedError struct {
	Doing string // what the first refused message was to do
	// the refused objects; none for a deletion, or where the kernel doesn't say
	Objects []Object
	Unsent  bool  // no message can say it, so the kernel wasn't asked
	Err     error // the kernel's, or why it wasn't sent
}

func (r *RefusedError) Error() string {
	if r.Unsent {
		return fmt.Sprintf("%s: %v", r.Doing, r.Err)
	}
	return fmt.Sprintf("%s: %v: %v", r.Doing, ErrRefused, r.Err)
}

func (r *RefusedError) Unwrap() []error {
	if r.Unsent {
		return []error{r.Err}
	}
	return []error{ErrRefused, r.Err}
}

// CompareObjects orders objects by chain, set and element.
func CompareObjects(a, b Object) int {
	switch {
	case a.Chain != b.Chain:
		return cmp.Compare(a.Chain, b.Chain)
	case a.Set != b.Set:
		return cmp.Compare(a.Set, b.Set)
	}
	return compareElements(a.Element, b.Element)
}

// The two ways in which a transaction fails. Every error of Sync and Apply that comes from a
// transaction wraps one of them.
var (
	// ErrRefused says that the kernel refused a transaction: nothing of it happened.
	ErrRefused = errors.New("refused by the kernel")

	// ErrUnknownOutcome says that a transaction may or may not have happened.
	ErrUnknownOutcome = errors.New("outcome unknown")
)

// ErrOwned says that the table has another owner: another agent's Table, or another program that
// claimed it.
var ErrOwned = errors.New("table " + TableName + " is owned by another program")

// A Tally has the values of a chain's counters.
type Tally struct{ Packets, Bytes uint64 }

// Plus adds two tallies.
func (t Tally) Plus(other Tally) Tally {
	return Tally{t.Packets + other.Packets, t.Bytes + other.Bytes}
}
