package server

import "net/netip"

// Stats are figures of a server at one moment.
type Stats struct {
	Attachments int
	Pools       []PoolStats // one for each podCIDR that addresses come from
	// the state directory, or the socket in it, can't be written, or a record not removed
	StateFailing bool
	// times that something was wrong with a host end, and was put right, since the start
	HealedHostEnds uint64
}

// PoolStats are figures of the addresses of one podCIDR.
type PoolStats struct {
	Prefix  netip.Prefix
	Size    uint64 // addresses that pods can have; the largest number if there are more
	InUse   uint64
	Cooling uint64 // given back, and not to be given again yet
	Free    uint64
}

// Stats returns the figures of now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{Attachments: len(s.attachments) - len(s.leaving),
		StateFailing: s.dir.trouble() != "", HealedHostEnds: s.hostEnds.Healed()}
	for _, prefix := range s.addresses.prefixes {
		stats.Pools = append(stats.Pools, s.addresses.stats(prefix, s.opts.Now()))
	}
	return stats
}
