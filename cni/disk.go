package cni

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// IsOfDisk tells whether a file system gave this error that may take it back some day.
func IsOfDisk(err error) bool {
	is := func(errno unix.Errno) bool { return errors.Is(err, errno) }
	return slices.ContainsFunc([]unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO}, is)
}
