package killpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trap is attached to a program that was started by way of a Launcher. Its methods may be called
// concurrently.
type Trap struct {
	pidfd, listener int
	stop            chan struct{}
	ended           chan struct{}
	killed          chan struct{}

	mu    sync.Mutex
	aim   *Aim   // nil while not armed
	calls []Call // since Arm, those that aim picks
	death *Call
}

// Aim says at which kill point a program is to die: the At-th of those that Of picks, or of all if
// Of is nil; with At 0 at none.
type Aim struct {
	At int
	Of func(Call) bool
	// Starve lets the program live, and lose the kernel's answers to the call: its socket gets the
	// smallest receive buffer there is, so that reading from it fails with ENOBUFS when there are
	// more than a few.
	Starve bool
}

// Attach answers for a program from its first filtered call on; until then the program waits. It is
// armed at once, or with nil not yet: then everything passes. Close must be called, also when the
// program has died.
func Attach(ctx context.Context, pid int, aim *Aim) (*Trap, error) {
	t := &Trap{aim: aim, stop: make(chan struct{}), ended: make(chan struct{}),
		killed: make(chan struct{})}
	var err error
	if t.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return nil, fmt.Errorf("attaching to process %d: %w", pid, err)
	}
	if t.listener, err = t.findListener(ctx); err != nil {
		return nil,
			errors.Join(fmt.Errorf("attaching to process %d: %w", pid, err), unix.Close(t.pidfd))
	}
	go t.run()
	return t, nil
}

// findListener waits until the launcher has made its filter.
func (t *Trap) findListener(ctx context.Context) (int, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		fd, err := unix.PidfdGetfd(t.pidfd, listenerFD, 0)
		// ESRCH also says that the launcher is just becoming the program, by a thread that isn't
		// its first.
		isEarly := errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH)
		if !isEarly || t.hasExited() {
			return fd, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0,
				fmt.Errorf("waiting for the filter of its system calls: %w", context.Cause(ctx))
		}
	}
}

// hasExited: then a pidfd can be read from.
func (t *Trap) hasExited() bool {
	//nolint:gosec // a descriptor
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(t.pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// Arm counts from now, and forgets what was.
func (t *Trap) Arm(aim Aim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.aim, t.calls = &aim, nil
}

// Disarm lets everything pass, and returns the kill points that were picked since the trap was
// armed, the one included at which the program was killed.
func (t *Trap) Disarm() []Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.aim = nil
	return t.calls
}

// Killed is closed when the trap kills the program.
func (t *Trap) Killed() <-chan struct{} { return t.killed }

// Death is the kill point at which the trap killed the program, or nil.
func (t *Trap) Death() *Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.death
}

// Close ends the trap. A program that lives on stands still at its next filtered call, so kill it
// first.
func (t *Trap) Close() {
	close(t.stop)
	<-t.ended
}

// The structures of seccomp_unotify(2).
type (
	notification struct {
		id           uint64
		pid, flags   uint32
		number, arch uint32
		_            uint64 // instruction
		args         [6]uint64
	}
	response struct {
		id    uint64
		val   int64
		err   int32
		flags uint32
	}
)

func (t *Trap) run() {
	defer close(t.ended)
	defer func() { _, _ = unix.Close(t.listener), unix.Close(t.pidfd) }()
	for {
		select {
		case <-t.stop:
			return
		default:
		}
		const lookAtStop = 20 // ms
		//nolint:gosec // a descriptor
		poll := []unix.PollFd{{Fd: int32(t.listener), Events: unix.POLLIN}}
		_, err := unix.Poll(poll, lookAtStop)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return
		case poll[0].Revents&unix.POLLIN != 0:
			t.answer()
		case poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0:
			return // the program is gone
		}
	}
}

// answer takes one call and lets it go on, or kills its process.
func (t *Trap) answer() {
	var n notification
	if err := t.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
		return // the caller is gone
	}
	dies, starves := t.hit(&n)
	if starves {
		_ = t.request(&n).starve() // if it can't, the test misses the error
	}
	if dies {
		_ = unix.PidfdSendSignal(t.pidfd, unix.SIGKILL, nil, 0) // it may be gone
		// without an answer, the call isn't made
		return
	}
	r := response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	_ = t.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) // the caller may be gone
}

func (t *Trap) request(n *notification) request {
	return request{thread: int(n.pid), pidfd: t.pidfd, number: uintptr(n.number), args: n.args}
}

// hit says what to do to the program at a call: nothing, or what the trap's aim says.
func (t *Trap) hit(n *notification) (dies, starves bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.death != nil {
		return true, false // another thread, meanwhile
	}
	if t.aim == nil {
		return false, false
	}
	call, ok := t.request(n).killPoint()
	if !ok || t.aim.Of != nil && !t.aim.Of(call) {
		return false, false
	}
	t.calls = append(t.calls, call)
	if len(t.calls) != t.aim.At {
		return false, false
	}
	if t.aim.Starve {
		return false, true
	}
	t.death = &call
	close(t.killed)
	return true, false
}

func (t *Trap) ioctl(what uintptr, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.listener), what, uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}
