package killpoint

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launchArgument is the first argument of this program when it is to become another.
const launchArgument = "killpoint-launch"

// listenerFD is where a launched program has the descriptor of its filter, for Attach to find: one
// that nothing else is given.
const listenerFD = 999

// Launcher returns the command line to put in front of a program's own, so that Attach can be used
// on it. This program's main, or TestMain, must begin with Launch.
func Launcher() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the program that is to launch others: %w", err)
	}
	return []string{self, launchArgument}, nil
}

// Launch does nothing unless this process is started as a Launcher. Then it becomes the program
// that its arguments name, or exits.
func Launch() {
	if len(os.Args) < 3 || os.Args[1] != launchArgument {
		return
	}
	err := become(os.Args[2:])
	fmt.Fprintln(os.Stderr, "killpoint:", err)
	os.Exit(1)
}

func become(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	env := os.Environ()
	runtime.LockOSThread() // the filter is this thread's, and of what it becomes
	if err := installFilter(); err != nil {
		return fmt.Errorf("filtering the system calls of %s: %w", path, err)
	}
	return fmt.Errorf("becoming %s: %w", path, unix.Exec(path, argv, env))
}

// installFilter leaves the filter's descriptor at listenerFD. From then on, the filtered calls wait
// for a process that has that descriptor.
func installFilter() error {
	program := filterProgram()
	//nolint:gosec // it has some tens of instructions
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER |
		unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags,
		uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return unix.Dup3(int(fd), listenerFD, 0) // without O_CLOEXEC, which the first has
}

// filtered are the calls that the filter asks about. The Go runtime and libraries on Linux make no
// others that change what outlives a process, on any architecture.
var filtered = []uintptr{
	unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG,
	unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_PWRITE64,
	unix.SYS_OPENAT, unix.SYS_BIND,
	unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_LINKAT,
	unix.SYS_SYMLINKAT,
	unix.SYS_FTRUNCATE, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT,
}

// filterProgram asks about filtered and lets everything else pass.
func filterProgram() []unix.SockFilter {
	const load, jumpIfEqual, end = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS,
		unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	program := []unix.SockFilter{{Code: load, K: 0}} // the number of the call
	for i, call := range filtered {
		//nolint:gosec // small
		program = append(program,
			unix.SockFilter{Code: jumpIfEqual, Jt: uint8(len(filtered) - i), K: uint32(call)})
	}
	return append(program,
		unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: end, K: unix.SECCOMP_RET_USER_NOTIF})
}
