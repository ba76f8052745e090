// Package pathless describes an error of a file without the file's name. A file that is written as
// a whole first has a temporary name, which differs each time. An error that is reported once must
// not change with that name.
package pathless

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Error is the operation and the cause of an error of a file's operation, without its paths; nil
// for nil. Another error is returned as it is.
func Error(err error) error {
	if of := new(fs.PathError); errors.As(err, &of) {
		return fmt.Errorf("%s: %w", of.Op, of.Err)
	}
	if of := new(os.LinkError); errors.As(err, &of) {
		return fmt.Errorf("%s: %w", of.Op, of.Err)
	}
	return err
}
