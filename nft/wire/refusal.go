package wire

import (
	"errors"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
	"github.com/sluice-net/sluice/nft"
)

// A subject is what a message of a transaction is about.
type subject struct {
	doing    string
	object   nft.Object   // zero where it can't be left out
	elements []newElement // those in the message, for one that adds some
}

// about says what the message is to make that was queued last.
func (c *Conn) about(o nft.Object, elements ...newElement) {
	last := &c.subjects[len(c.subjects)-1]
	last.object, last.elements = o, elements
}

// refusalOf finds out what the kernel refused. An error about one message makes others fail that
// refer to its object (ENOENT), so of those only the first counts. first is the sequence number of
// the first message.
func refusalOf(err error, first uint32, messages []netlink.Message,
	subjects []subject) *nft.RefusedError {
	var refusal *nft.RefusedError
	for _, op := range opErrors(err) {
		i := op.Sequence - first
		if i >= uint32(len(subjects)) {
			continue
		}
		if refusal == nil {
			refusal = &nft.RefusedError{Doing: subjects[i].doing, Err: op}
		} else if len(refusal.Objects) == 0 || errors.Is(op, unix.ENOENT) {
			continue
		}
		o := subjects[i].refused(messages[i], op.Offset)
		if o != (nft.Object{}) && !slices.Contains(refusal.Objects, o) {
			refusal.Objects = append(refusal.Objects, o)
		}
	}
	return refusal
}

// unsendable is the error of an operation that can't be put into a message: as good as refused, and
// its object can be left out likewise.
func unsendable(op nft.Op, err error) error {
	if op.Kind == nft.AddChain || op.Kind == nft.AddRules {
		return &nft.RefusedError{Doing: "encoding", Unsent: true,
			Objects: []nft.Object{{Chain: op.Chain.Name}}, Err: err}
	}
	if op.Kind == nft.AddSet {
		return &nft.RefusedError{Doing: "encoding", Unsent: true,
			Objects: []nft.Object{{Set: op.Set.Name}}, Err: err}
	}
	return err
}

// opErrors lists the errors that send has joined.
func opErrors(err error) []*netlink.OpError {
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	var ops []*netlink.OpError
	for _, e := range list {
		var op *netlink.OpError
		if errors.As(e, &op) && op.Sequence != 0 {
			ops = append(ops, op)
		}
	}
	return ops
}

// refused is the object, or the element that the kernel points at by the offset of its attribute in
// the message.
func (s subject) refused(m netlink.Message, offset int) nft.Object {
	if len(s.elements) == 0 {
		return s.object
	}
	i := elementAt(m.Data, offset-nlmsgHeader)
	if i < 0 || i >= len(s.elements) {
		return nft.Object{} // an older kernel doesn't say which
	}
	for i > 0 && s.elements[i].endMarker {
		i-- // it ends the range that begins before it
	}
	return nft.Object{Set: s.object.Set, Element: s.elements[i].Element}
}

const (
	nlmsgHeader = 16 // struct nlmsghdr
	nfgenHeader = 4  // struct nfgenmsg
)

// elementAt is the index of the element whose attribute holds a position in a message; -1 if none
// does.
func elementAt(data []byte, position int) int {
	at := nfgenHeader
	for kind, value := range attribute.All(data[nfgenHeader:]) {
		if kind == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return attributeAt(value, position-at-unix.SizeofNlAttr)
		}
		at += attribute.Space(value)
	}
	return -1
}

// attributeAt is the index of the attribute that holds a position; -1 if none does.
func attributeAt(list []byte, position int) int {
	i, end := 0, 0
	for _, value := range attribute.All(list) {
		start := end
		if end += attribute.Space(value); start <= position && position < end {
			return i
		}
		i++
	}
	return -1
}
