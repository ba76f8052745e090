package main

import (
	"golang.org/x/sys/unix"
)

// withoutCapabilities runs f on this OS thread, which the caller has locked, without the effective
// capabilities that it has.
func withoutCapabilities(f func()) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, none [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return err
	}
	none = had
	none[0].Effective, none[1].Effective = 0, 0
	if err := unix.Capset(&header, &none[0]); err != nil {
		return err
	}
	f()
	return unix.Capset(&header, &had[0])
}
