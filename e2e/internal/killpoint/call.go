package killpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind is what a kill point changes.
type Kind string

// The kinds of kill points.
const (
	Nftables   Kind = "nftables"   // a transaction
	Conntrack  Kind = "conntrack"  // an entry
	Links      Kind = "links"      // also addresses, routes, neighbours, queueing
	Files      Kind = "files"      // also sysctls and sockets by name
	UnixSocket Kind = "unixsocket" // an answer, or a question
)

// Call is a kill point.
type Call struct {
	Kind Kind
	What string // for people
}

func (c Call) String() string { return string(c.Kind) + ": " + c.What }

// request is a system call that waits for an answer.
type request struct {
	thread int // that makes it
	pidfd  int // of its process
	number uintptr
	args   [6]uint64
}

// killPoint says what a call would change, if anything. It reads the caller's memory while the
// caller waits.
func (r request) killPoint() (Call, bool) {
	switch r.number {
	case unix.SYS_SENDTO:
		return r.message(r.args[1], r.args[2])
	case unix.SYS_SENDMSG, unix.SYS_SENDMMSG:
		base, length, err := r.firstPart()
		if err != nil {
			return Call{Files, "sendmsg: " + err.Error()}, true // rather one too many
		}
		return r.message(base, length)
	case unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_PWRITE64:
		return r.write()
	case unix.SYS_OPENAT:
		const changes = unix.O_CREAT | unix.O_TRUNC
		return Call{Files, "create " + r.text(r.args[1])}, r.args[2]&changes != 0
	case unix.SYS_BIND:
		address := r.bytes(r.args[1], r.args[2])
		if len(address) > 2 && binary.NativeEndian.Uint16(address) == unix.AF_UNIX {
			return Call{Files, "bind " + strings.TrimRight(string(address[2:]), "\x00")}, true
		}
		return Call{}, false
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT:
		return Call{Files, "rename " + r.text(r.args[1]) + " to " + r.text(r.args[3])}, true
	case unix.SYS_UNLINKAT:
		return Call{Files, "remove " + r.text(r.args[1])}, true
	case unix.SYS_MKDIRAT:
		return Call{Files, "mkdir " + r.text(r.args[1])}, true
	case unix.SYS_FCHMODAT:
		return Call{Files, "chmod " + r.text(r.args[1])}, true
	}
	return Call{Files,
		fmt.Sprintf("change a file's length, owner or mode (system call %d)", r.number)}, true
}

// write is a kill point if it is about a file that isn't the program's log, or a unix socket.
func (r request) write() (Call, bool) {
	//nolint:gosec // a descriptor
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", r.thread, int32(r.args[0])))
	if err != nil {
		return Call{}, false // the call will fail
	}
	if strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/dev/") &&
		!strings.HasSuffix(target, ".log") {
		return Call{Files, "write " + target}, true
	}
	if strings.HasPrefix(target, "socket:") {
		if domain, _ := r.socket(); domain == unix.AF_UNIX {
			return Call{UnixSocket, "write " + strconv.FormatUint(r.args[2], 10) + " bytes"}, true
		}
	}
	return Call{}, false
}

// message is a kill point if it goes to netlink and doesn't only ask.
func (r request) message(base, length uint64) (Call, bool) {
	domain, protocol := r.socket()
	if domain == unix.AF_UNIX {
		return Call{UnixSocket, "send"}, true
	}
	if domain != unix.AF_NETLINK {
		return Call{}, false
	}
	return netlinkCall(protocol, r.bytes(base, min(length, 64<<10)))
}

// starve leaves the socket that a call is about hardly any room for answers.
func (r request) starve() error {
	fd, err := unix.PidfdGetfd(r.pidfd, int(int32(r.args[0])), 0) //nolint:gosec // a descriptor
	if err != nil {
		return fmt.Errorf("taking a socket of process %d: %w", r.thread, err)
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0) // the kernel's minimum
}

// socket returns the domain and the protocol of the socket that a call is about, or 0.
func (r request) socket() (domain, protocol int) {
	fd, err := unix.PidfdGetfd(r.pidfd, int(int32(r.args[0])), 0) //nolint:gosec // a descriptor
	if err != nil {
		return 0, 0
	}
	defer func() { _ = unix.Close(fd) }()
	if domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return 0, 0
	}
	protocol, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return 0, 0
	}
	return domain, protocol
}

// firstPart is where the first part is of what sendmsg would send: that is all of a netlink
// message.
func (r request) firstPart() (base, length uint64, err error) {
	var header unix.Msghdr
	raw := r.bytes(r.args[1], uint64(unsafe.Sizeof(header)))
	if len(raw) != int(unsafe.Sizeof(header)) {
		return 0, 0, errors.New("unreadable header")
	}
	const vector = 16 // offset of msg_iov where pointers have 64 bits
	parts := r.bytes(binary.NativeEndian.Uint64(raw[vector:]), 16)
	if len(parts) != 16 {
		return 0, 0, errors.New("unreadable vector")
	}
	return binary.NativeEndian.Uint64(parts), binary.NativeEndian.Uint64(parts[8:]), nil
}

// bytes reads the caller's memory. What can't be read is left out.
func (r request) bytes(at, length uint64) []byte {
	if length == 0 {
		return nil
	}
	buf := make([]byte, length)
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	//nolint:gosec // checked
	n, err := unix.ProcessVMReadv(r.thread, local,
		[]unix.RemoteIovec{{Base: uintptr(at), Len: int(length)}}, 0)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// text reads a C string, which may end anywhere on its page or on the next.
func (r request) text(at uint64) string {
	const page = 4096
	head := r.bytes(at, page-at%page)
	if text, _, found := strings.Cut(string(head), "\x00"); found {
		return text
	}
	tail, _, _ := strings.Cut(string(r.bytes(at+uint64(len(head)), page)), "\x00")
	return string(head) + tail
}
