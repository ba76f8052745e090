package cni

import "net/netip"

// ForgetConnections deletes what connection tracking remembers of addresses, in the node's network namespace, except for those of
// attachments, which ADD and DEL see to.
func (s *Server) ForgetConnections(addrs []netip.Addr) error {
	mine := map[netip.Addr]bool{}
	for _, a := range s.Attachments() {
		for _, addr := range a.Addresses {
			mine[addr] = true
		}
	}
	var others []netip.Addr
	for _, addr := range addrs {
		if !mine[addr] {
			others = append(others, addr)
		}
	}
	return s.inHost(func() error { return forgetConnections(others) })
}
