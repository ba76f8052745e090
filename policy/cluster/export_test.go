package cluster

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/policy"
)

// CheckCounts compares what is counted of sets with what is in them.
func (c *Cluster) CheckCounts() error {
	for id, s := range c.sets {
		members := map[policy.Member]bool{}
		for m := range c.members(s) {
			members[m] = true
		}
		if len(members) != s.size {
			return fmt.Errorf("set %s: %d members, counted as %d", id, len(members), s.size)
		}
		for m, t := range s.touched {
			if t.is != members[m] {
				return fmt.Errorf("set %s: %v is noted as a member: %t", id, m, t.is)
			}
		}
		for m := range s.waiting {
			if _, touched := s.touched[m]; touched || !members[m] {
				return fmt.Errorf("set %s: %v waits, a member: %t, touched: %t", id, m, members[m],
					touched)
			}
		}
	}
	for namespace, a := range c.accounts {
		members := 0
		for _, s := range c.sets {
			if s.payers[a] > 0 {
				members += s.size
			}
		}
		if members != a.members {
			return fmt.Errorf("namespace %s: %d members, accounted as %d", namespace, members,
				a.members)
		}
	}
	return nil
}

// LocalAddresses lists the addresses of all endpoints, as of the last Take.
func (c *Cluster) LocalAddresses() []netip.Addr {
	var out []netip.Addr
	for _, e := range c.compiled {
		out = append(out, e.Addresses...)
	}
	return out
}
