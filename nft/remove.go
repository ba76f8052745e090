package nft

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Remove deletes the table with all that is in it, whatever that is, as one
// transaction. That there is none is no error. From then on everything that it
// denied passes; nobody may use the Table meanwhile.
func Remove(opts Options) error {
	t, err := Open(opts)
	if err != nil {
		return err
	}
	err = t.conn.queue("deleting table "+TableName, unix.NFT_MSG_DELTABLE, remove, func(body *netlink.AttributeEncoder) error {
		body.String(unix.NFTA_TABLE_NAME, TableName)
		return nil
	})
	if err == nil {
		_, err = t.conn.flush()
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return fmt.Errorf("removing the table: %w", err)
	}
	return nil
}
