package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/test/needroot"
)

// Node is a network namespace that forwards IPv4 and IPv6 between the hosts attached to it, as a
// Kubernetes node does.
type Node struct {
	t     testing.TB
	space *namespace
	self  *Host

	mu     sync.Mutex
	hosts  []*Host // the node itself is the first
	links  byte    // Outside links made so far
	bridge netlink.Link
}

// NewNode makes a node: loopback up, forwarding on for both families, duplicate address detection
// and reverse path filter off. It has no address but those of loopback, see AddAddr and Outside,
// and no default route. Conntrack sees nothing until a rule needs it, such as one with "ct state":
// flows from before look new to it, in the middle. The node and all its hosts are gone after t's
// cleanup. Without root the test is skipped.
func NewNode(t testing.TB) *Node {
	t.Helper()
	needroot.Skip(t)
	space, err := newNamespace(forwardingSysctls()...)
	if err != nil {
		t.Fatalf("making a node: %v", err)
	}
	n := &Node{t: t, space: space}
	n.self = &Host{t: t, node: n, name: "node", space: space}
	n.hosts = []*Host{n.self}
	t.Cleanup(n.close)
	return n
}

func (n *Node) close() {
	n.mu.Lock()
	hosts := n.hosts
	n.hosts = nil
	n.mu.Unlock()
	for _, h := range hosts[1:] {
		h.end(nil)
	}
	n.self.end(nil)
}

// NSFd returns a descriptor of the node's namespace, for example for nftables.WithNetNSFd. It stays
// the node's.
func (n *Node) NSFd() int { return int(n.space.netns.Fd()) }

// Path returns a file name of the node's namespace that other processes can open while the test
// runs.
func (n *Node) Path() string { return n.space.path() }

// Do runs f in the node's namespace, on an OS thread of its own that f must not unlock. Goroutines
// that f starts run elsewhere.
func (n *Node) Do(f func() error) error { return n.space.do(f) }

// Host returns the node itself as a client and server. Give it addresses with AddAddr.
func (n *Node) Host() *Host { return n.self }

// AddAddr gives the node an address of its own, on loopback, so that it stays while links come and
// go.
func (n *Node) AddAddr(addr netip.Addr) {
	n.t.Helper()
	lo, err := n.space.nl.LinkByName("lo")
	if err == nil {
		err = n.space.addAddr(lo, singleHost(addr))
	}
	if err != nil {
		n.t.Fatalf("adding %s to the node: %v", addr, err)
	}
	n.self.addAddr(addr)
}

// Nft runs the nft tool with args in the node's namespace and returns what it printed. A failure
// ends the test.
func (n *Node) Nft(args ...string) string {
	n.t.Helper()
	return n.nft("", args...)
}

// NftInput has the stock nft tool read input in the node's namespace.
func (n *Node) NftInput(input string) {
	n.t.Helper()
	n.nft(input, "-f", "-")
}

// nft runs the nft tool with input as its standard input.
func (n *Node) nft(input string, args ...string) string {
	n.t.Helper()
	var stdout, stderr strings.Builder
	// The process inherits the namespace of the thread that starts it.
	err := n.Do(func() error {
		cmd := exec.Command("nft", args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		n.t.Fatalf("nft %s: %v\n%s%s", strings.Join(args, " "), err, input, stderr.String())
	}
	return stdout.String()
}

// attach adds h to the hosts that nameOf knows and that end with the node.
func (n *Node) attach(h *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, h)
}

// describe names the host that has addr, with a space behind it, or returns "" for an address that
// no host has.
func (n *Node) describe(addr netip.Addr) string {
	n.mu.Lock()
	hosts := append([]*Host(nil), n.hosts...)
	n.mu.Unlock()
	for _, h := range hosts {
		if h.has(addr) {
			return h.name + " "
		}
	}
	return ""
}

// deleteLink removes a link of the node; a link that isn't there is no error.
func (n *Node) deleteLink(name string) error {
	link, err := n.space.nl.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = n.space.nl.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("deleting link %s: %w", name, err)
	}
	return nil
}
