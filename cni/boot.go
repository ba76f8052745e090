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

// SinceBoot is a clock that every process of the machine reads the same, and that nobody sets. It
// stands still while the machine sleeps, and so nobody takes that time for time in which other
// nodes learned something of this one (CLOCK_BOOTTIME would).
func SinceBoot() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // every kernel has it
	return time.Duration(now.Nano())
}
