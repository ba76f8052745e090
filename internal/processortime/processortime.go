// Package processortime measures work.
package processortime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Used is what this process (unix.RUSAGE_SELF) or the calling thread (unix.RUSAGE_THREAD) has used.
// On a busy node work takes longer, but no more of this.
func Used(of int) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(of, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
