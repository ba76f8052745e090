package wire

import (
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// flushError says what became of a failed flush. The subjects are what each message of the
// transaction was about; first is the sequence number of the first of them. Who may not speak to
// nftables at all is told so about the message that begins the transaction; who is told so about
// one of ours isn't the table's owner.
func flushError(err error, first uint32, messages []netlink.Message, subjects []subject) error {
	var op *netlink.OpError
	notOwner := errors.As(err, &op) && errors.Is(op.Err, unix.EPERM) && op.Sequence != 0 &&
		op.Sequence-first < uint32(len(subjects))
	if !notOwner && unknownOutcome(err) {
		return fmt.Errorf("%w: %w", nft.ErrUnknownOutcome, err)
	}
	refusal := refusalOf(err, first, messages, subjects)
	switch {
	case refusal == nil:
		return fmt.Errorf("%w: %w", nft.ErrRefused, err)
	case errors.Is(refusal.Err, unix.EPERM):
		return fmt.Errorf("%s: %w: %w: %w", refusal.Doing, nft.ErrRefused, nft.ErrOwned, err)
	}
	return refusal
}

// unknownOutcome tells what the kernel said from what went wrong on the way. Only an error that
// came in a netlink message (it has a sequence number) is the kernel's word, except for those by
// which it says that it lost or never looked at something.
func unknownOutcome(err error) bool {
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EPERM) ||
		errors.Is(err, unix.EMSGSIZE) ||
		errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var op *netlink.OpError
	return !errors.As(err, &op) || op.Sequence == 0
}
