package wire

import (
	"errors"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// A table can belong to the socket that made it (linux/netfilter/nf_tables.h, NFT_TABLE_F_OWNER,
// since 5.12): then nobody else changes or deletes it, and a flush of the ruleset passes it by.
// With NFT_TABLE_F_PERSIST (since 6.9) it outlives that socket, as an orphan that anybody can
// change, and that another socket can claim. A table that was made without PERSIST can't be
// claimed.
const (
	TableOwner   = 0x2
	TablePersist = 0x4
)

// tableOwnerAttr is the attribute of a table that says who owns it.
const tableOwnerAttr = 7 // NFTA_TABLE_OWNER

// ReadTable asks for the table alone.
func (c *Conn) ReadTable() (exists bool, flags, owner uint32, err error) {
	bodies, err := c.ask(unix.NFT_MSG_GETTABLE, 0, nameAttr(unix.NFTA_TABLE_NAME, nft.TableName))
	if errors.Is(err, unix.ENOENT) {
		return false, 0, 0, nil
	}
	if err != nil {
		return false, 0, 0, err
	}
	for _, body := range bodies {
		if err := decode(body, func(ad *netlink.AttributeDecoder) error {
			switch ad.Type() {
			case unix.NFTA_TABLE_FLAGS:
				flags = ad.Uint32()
			case tableOwnerAttr:
				owner = ad.Uint32()
			}
			return nil
		}); err != nil {
			return false, 0, 0, err
		}
	}
	return true, flags, owner, nil
}

// Port is the netlink port of the connection.
func (c *Conn) Port() uint32 { return c.raw.PID() }

// What the two messages of AskForOwnedTables are about.
const (
	asksForOwned = "asking for an owned table"
	endsQuestion = "ending the question"
)

// AskForOwnedTables queues a transaction that makes an owned table which persists, and that is
// refused whatever the kernel has: OwnedTables reads the answer.
func (c *Conn) AskForOwnedTables() error {
	err := c.queue(asksForOwned, unix.NFT_MSG_NEWTABLE, create,
		func(body *netlink.AttributeEncoder) error {
			body.String(unix.NFTA_TABLE_NAME, nft.TableName+"-probe")
			body.Uint32(unix.NFTA_TABLE_FLAGS, TableOwner|TablePersist)
			return nil
		})
	return errors.Join(err, c.EndQuestion())
}

// EndQuestion queues what the kernel refuses in any case, a table without a name: with it at its
// end, a transaction changes nothing, and only asks whether the kernel takes all before it.
func (c *Conn) EndQuestion() error {
	return c.queue(endsQuestion, unix.NFT_MSG_NEWTABLE, create,
		func(*netlink.AttributeEncoder) error { return nil })
}

// TakesAll reports whether the kernel took all of a question but its end, by the error with which
// Flush has failed; refusal is what it said otherwise. Another error is returned.
func TakesAll(answer error) (refusal *nft.RefusedError, err error) {
	switch {
	case answer == nil:
		return nil, errors.New("the kernel took a table without a name")
	case !errors.As(answer, &refusal):
		return nil, answer
	case refusal.Doing == endsQuestion:
		return nil, nil
	}
	return refusal, nil
}

// OwnedTables reports whether the kernel has owned tables that persist, by the error with which
// Flush of what AskForOwnedTables queued has failed. Another error is returned.
func OwnedTables(answer error) (bool, error) {
	refusal, err := TakesAll(answer)
	return refusal == nil && err == nil, err
}
