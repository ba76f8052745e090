package testdisk

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OnThread runs f on a thread that ends with it, so that what f does to the thread goes too.
func OnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever
		done <- f()
	}()
	return <-done
}

// WithoutSync is OnThread where the disk takes nothing: fsync fails with EIO. It needs no root.
func WithoutSync(f func() error) error {
	return OnThread(func() error {
		if err := refuseFsync(); err != nil {
			return errors.Join(errors.New("making fsync fail"), err)
		}
		return f()
	})
}

// refuseFsync has the kernel answer fsync of this thread so (seccomp(2)).
func refuseFsync() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	address := uintptr(unsafe.Pointer(&filter)) //nolint:gosec // the kernel copies it
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, address)
	if errno != 0 {
		return errno
	}
	return nil
}
