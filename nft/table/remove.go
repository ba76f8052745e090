package table

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Remove deletes the table with all that is in it, whatever that is, as one transaction. That there
// is none is no error. From then on everything that it denied passes; nobody may use the Table
// meanwhile.
func Remove(opts Options) error {
	t, err := Open(opts)
	if err != nil {
		return err
	}
	err = t.conn.DeleteTable()
	if err == nil {
		_, err = t.conn.Flush()
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return fmt.Errorf("removing the table: %w", err)
	}
	return nil
}
