package link

import (
	"net"
	"strings"
)

// Item is one thing in the kernel that is added, changed and removed as a whole. Its values can be
// compared with ==, and are equal if nothing has to be done to get from one to the other.
type Item interface {
	Kind() Kind
	Key() string    // of one kind and key there is one thing
	Device() string // the name of the link that it is or is on; empty: of none
	Add() string    // the command that a person would type to add it, or to change what is there
	Remove() string // the command that removes it

	// Put adds the item in the place of what is there, of the same kind and key. If that is more
	// than one thing, it was removed before.
	Put(k *Kernel, now []Item) error
	// Drop removes it. Whether there is such a thing at all doesn't matter: IsGone of the error is
	// true otherwise.
	Drop(k *Kernel) error
}

// Kind is what an item is. Kinds are in the order in which things are added: what others stand on
// comes first, and goes last.
type Kind int

// The kinds.
const (
	KindSysctl Kind = iota
	KindLink
	KindQueue
	KindFilter
	KindAddress
	KindNeighbour
	KindForward
	KindRoute
)

// State is what is in the kernel, or should be, in any order.
type State []Item

// String is the commands that make the state, in order.
func (s State) String() string { return Commands(Diff(s, nil, nil)) }

// Of is the items of one type, in their order.
func Of[T Item](s State) []T {
	var of []T
	for _, item := range s {
		if t, ok := item.(T); ok {
			of = append(of, t)
		}
	}
	return of
}

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// When is the text where the condition holds; for commands.
func When(holds bool, text string) string {
	if holds {
		return text
	}
	return ""
}

// remark is what differs about a thing, as a comment behind a command.
func remark(different string) string { return When(different != "", " # "+different) }

// join makes one text of what differs about a thing; empty if nothing does.
func join(odd []string) string { return strings.Join(odd, " ") }
