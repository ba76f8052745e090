package probe

import (
	"net/netip"
	"sync"
)

// Server answers queries until it is closed.
type Server struct {
	once sync.Once
	stop func() // ends the server and waits for its goroutines
}

// Close ends the server and its connections. Closing twice is no error.
func (s *Server) Close() { s.once.Do(s.stop) }

// greet is the line a server answers with.
func greet(name string, peer netip.AddrPort) string {
	return name + " " + netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()).String()
}
