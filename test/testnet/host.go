package testnet

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-net/sluice/test/probe"
)

// Host is one end of connections: a pod, a machine outside the pod network, or the node itself.
type Host struct {
	t     testing.TB
	node  *Node
	name  string
	iface string // the veth's name in the node's namespace; empty for the node itself
	space *namespace

	mu    sync.Mutex
	addrs []netip.Addr
	stops []func() // ends servers, flows and floods
	gone  bool

	sctpMu sync.Mutex
	sctp   *probe.SCTPServer // nil until something is served
}

// Name returns the name the host was made with, which its servers answer with. The node's own is
// "node".
func (h *Host) Name() string { return h.name }

// Interface returns the name of the host's veth in the node's namespace, or "" for the node itself.
func (h *Host) Interface() string { return h.iface }

// Addr4 returns the host's first IPv4 address, or the zero Addr.
func (h *Host) Addr4() netip.Addr { return h.firstAddr(netip.Addr.Is4) }

// Addr6 returns the host's first IPv6 address, or the zero Addr.
func (h *Host) Addr6() netip.Addr { return h.firstAddr(netip.Addr.Is6) }

// NSFd returns a descriptor of the host's namespace. It stays the host's.
func (h *Host) NSFd() int { return int(h.space.netns.Fd()) }

// Path returns a file name of the host's namespace that other processes can open while the host
// lives.
func (h *Host) Path() string { return h.space.path() }

// Do runs f in the host's namespace, on an OS thread of its own that f must not unlock. Goroutines
// that f starts run elsewhere.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// Remove ends the host before the test does: its servers, its veth with the routes and neighbours
// of it, and its namespace. Its addresses are free for another host when Remove returns. Removing
// twice is no error; the node itself can't be removed.
func (h *Host) Remove() {
	if h == h.node.self {
		h.t.Errorf("removing the node itself")
		return
	}
	h.end(func() {
		if err := h.node.deleteLink(h.iface); err != nil {
			h.t.Errorf("removing %s: %v", h.name, err)
		}
	})
}

// end stops what runs on the host and lets go of its namespace, with whose end the kernel deletes
// the links in it a little later. Before that it calls unlink, unless nil. The second time it does
// nothing.
func (h *Host) end(unlink func()) {
	h.mu.Lock()
	gone := h.gone
	h.gone = true
	h.addrs = nil
	h.mu.Unlock()
	if gone {
		return
	}
	h.stop()
	if unlink != nil {
		unlink()
	}
	h.space.close()
}

// stop ends everything that runs on the host, last first.
func (h *Host) stop() {
	h.mu.Lock()
	stops := h.stops
	h.stops = nil
	h.mu.Unlock()
	slices.Reverse(stops)
	for _, stop := range stops {
		stop()
	}
}

// onStop has f called when the host ends.
func (h *Host) onStop(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stops = append(h.stops, f)
}

func (h *Host) addAddr(addr netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addrs = append(h.addrs, addr)
}

func (h *Host) has(addr netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.addrs, addr)
}

func (h *Host) firstAddr(match func(netip.Addr) bool) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.IndexFunc(h.addrs, match); i >= 0 {
		return h.addrs[i]
	}
	return netip.Addr{}
}
