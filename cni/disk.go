package cni

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// IsOfDisk reports whether an error is of a file system, and may go away.
func IsOfDisk(err error) bool {
	is := func(errno unix.Errno) bool { return errors.Is(err, errno) }
	return slices.ContainsFunc([]unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO}, is)
}
