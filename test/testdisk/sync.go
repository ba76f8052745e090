package testdisk

import (
	"errors"
	"fmt"
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
		if _, err := onFsync(unix.SECCOMP_RET_ERRNO|uint32(unix.EIO), 0); err != nil {
			return fmt.Errorf("making fsync fail: %w", err)
		}
		return f()
	})
}

// HangingSync is OnThread where the disk hangs: fsync doesn't return. Once f waits for it, hangs is
// true, and the disk takes nothing (ENOSYS), so that f ends. It needs no root.
func HangingSync(f func() error) (hangs bool, err error) {
	asked, ended := make(chan int, 1), make(chan error, 1)
	go func() {
		ended <- OnThread(func() error {
			fd, err := onFsync(unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
			asked <- fd
			if err != nil {
				return fmt.Errorf("making fsync hang: %w", err)
			}
			return f()
		})
	}()
	fd := <-asked
	if fd < 0 {
		return false, <-ended
	}
	for !hangs {
		select {
		case err = <-ended:
			return false, errors.Join(err, unix.Close(fd))
		default:
		}
		hangs, err = isAsked(fd)
		if err != nil {
			break
		}
	}
	return hangs, errors.Join(err, unix.Close(fd), <-ended) // closed, it answers
}

// isAsked tells whether a thread waits for an answer, and waits a moment for it to do so.
func isAsked(fd int) (bool, error) {
	//nolint:gosec // descriptors are small
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 10)
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return fds[0].Revents&unix.POLLIN != 0, err
}

// onFsync has the kernel answer fsync of this thread so (seccomp(2)). It returns what the system
// call does: 0, or the descriptor that the flag asks for, and -1 with an error.
func onFsync(answer, flags uint32) (int, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, err
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: answer},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	address := uintptr(unsafe.Pointer(&filter)) //nolint:gosec // the kernel copies it
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags),
		address)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil //nolint:gosec // descriptors are small
}
