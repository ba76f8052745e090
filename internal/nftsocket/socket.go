// Package nftsocket opens the connections to nftables that nft/wire and nft/table speak over.
//
// It is the one place where a test can step between them and the kernel: to have the kernel refuse
// an object, to lose its answers, or to look like an older one (test/nfttest).
package nftsocket

import (
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Socket is what is used of a *netlink.Conn, with its meaning.
type Socket interface {
	SendMessages(messages []netlink.Message) ([]netlink.Message, error)
	Receive() ([]netlink.Message, error)
	Execute(message netlink.Message) ([]netlink.Message, error)
	JoinGroup(group uint32) error
	PID() uint32
	Close() error

	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	SetOption(option netlink.ConnOption, enable bool) error
	SyscallConn() (syscall.RawConn, error)
}

// A Dialer opens a Socket in the network namespace of a file descriptor, or the calling thread's
// for 0.
type Dialer func(netNS int) (Socket, error)

// Dial is the Dialer of the kernel's own nftables.
func Dial(netNS int) (Socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netNS})
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	return conn, nil
}
