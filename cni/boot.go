package cni

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootID names the time between two boots of the machine (random(4)). It is empty where the kernel
// doesn't say.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// SinceBoot is a clock that is the same for all processes of the machine, and that can't be set. It
// stands still while the machine sleeps, since other nodes learn nothing of this one in that time
// (CLOCK_BOOTTIME goes on).
func SinceBoot() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // every kernel has it
	return time.Duration(now.Nano())
}
