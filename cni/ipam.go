package cni

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// errNoPodCIDR is why no address can be given at first.
var errNoPodCIDR = errors.New("the node has no podCIDR yet")

// allocator gives addresses out of the node's podCIDRs, each to one attachment at a time, and a freed one not before it has cooled
// down: other nodes may still send to its last owner. It is a value that does no I/O: the caller says what time it is, and locks.
type allocator struct {
	coolDown time.Duration
	prefixes []netip.Prefix          // at most one of each family
	last     map[int]netip.Addr      // the latest given, by the bits of its family
	taken    map[netip.Addr]struct{} // also addresses outside of prefixes, from before these changed
	cooling  map[netip.Addr]time.Time
}

func newAllocator(coolDown time.Duration) *allocator {
	return &allocator{
		coolDown: coolDown,
		last:     map[int]netip.Addr{},
		taken:    map[netip.Addr]struct{}{},
		cooling:  map[netip.Addr]time.Time{},
	}
}

// setPrefixes takes the first valid prefix of each family.
func (p *allocator) setPrefixes(prefixes []netip.Prefix) {
	p.prefixes = nil
	for _, prefix := range prefixes {
		sameFamily := func(other netip.Prefix) bool { return other.Addr().Is4() == prefix.Addr().Is4() }
		if prefix.IsValid() && !prefix.Addr().Is4In6() && !slices.ContainsFunc(p.prefixes, sameFamily) {
			p.prefixes = append(p.prefixes, prefix.Masked())
		}
	}
}

// allocate gives one address of each prefix, in their order, or none and an error.
func (p *allocator) allocate(now time.Time) ([]netip.Addr, error) {
	if len(p.prefixes) == 0 {
		return nil, errNoPodCIDR
	}
	maps.DeleteFunc(p.cooling, func(_ netip.Addr, freed time.Time) bool { return now.Sub(freed) >= p.coolDown })
	var addrs []netip.Addr
	for _, prefix := range p.prefixes {
		addr, ok := p.next(prefix)
		if !ok {
			return nil, p.exhausted(prefix, now)
		}
		addrs = append(addrs, addr)
	}
	for _, addr := range addrs {
		p.taken[addr] = struct{}{}
		p.last[addr.BitLen()] = addr
	}
	return addrs, nil
}

// next finds the first free address after the latest given, going round.
func (p *allocator) next(prefix netip.Prefix) (netip.Addr, bool) {
	addr := p.last[prefix.Addr().BitLen()]
	// Of so many addresses in a row one is free, unless the prefix has fewer and they were all seen.
	for range len(p.taken) + len(p.cooling) + 3 {
		addr = addr.Next()
		if !prefix.Contains(addr) {
			addr = prefix.Addr()
		}
		if p.isFree(prefix, addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func (p *allocator) isFree(prefix netip.Prefix, addr netip.Addr) bool {
	_, taken := p.taken[addr]
	_, cooling := p.cooling[addr]
	return !taken && !cooling && isGivable(prefix, addr)
}

// isGivable leaves out the network address, which is the node's own in the tunnel, and IPv4's broadcast address.
func isGivable(prefix netip.Prefix, addr netip.Addr) bool {
	return addr != prefix.Addr() && (addr.Is6() || prefix.Contains(addr.Next()))
}

func (p *allocator) exhausted(prefix netip.Prefix, now time.Time) error {
	inUse, cooling, wait := 0, 0, p.coolDown
	for addr := range p.taken {
		if prefix.Contains(addr) {
			inUse++
		}
	}
	for addr, freed := range p.cooling {
		if prefix.Contains(addr) {
			cooling++
			wait = min(wait, p.coolDown-now.Sub(freed))
		}
	}
	if cooling == 0 {
		return fmt.Errorf("no free address in %s: %d in use", prefix, inUse)
	}
	return fmt.Errorf("no free address in %s: %d in use, %d cooling down, the first of them for %s more",
		prefix, inUse, cooling, max(0, wait).Round(time.Second))
}

// claim takes an address that an attachment has had before.
func (p *allocator) claim(addr netip.Addr) {
	delete(p.cooling, addr)
	p.taken[addr] = struct{}{}
}

// release frees an address that a pod may have used, from now.
func (p *allocator) release(addr netip.Addr, now time.Time) {
	delete(p.taken, addr)
	p.cooling[addr] = now
}

// giveBack frees an address that no pod has ever used, so that it needs no cool-down.
func (p *allocator) giveBack(addr netip.Addr) { delete(p.taken, addr) }

// ledger is what an allocator remembers over a restart.
type ledger struct {
	Last    []netip.Addr             `json:"last"`
	Taken   []netip.Addr             `json:"taken"`
	Cooling map[netip.Addr]time.Time `json:"cooling"` // since when
}

func (p *allocator) ledger() ledger {
	return ledger{
		Last:    slices.SortedFunc(maps.Values(p.last), netip.Addr.Compare),
		Taken:   slices.SortedFunc(maps.Keys(p.taken), netip.Addr.Compare),
		Cooling: maps.Clone(p.cooling),
	}
}

// restore brings back what an allocator before this one knew. The attachments' addresses are claimed afterwards. What was taken and
// isn't claimed then was freed by someone else at an unknown time, so it cools down from now.
func (p *allocator) restore(from ledger, now time.Time) {
	for _, addr := range from.Last {
		p.last[addr.BitLen()] = addr
	}
	for addr, freed := range from.Cooling {
		if freed.After(now) { // the clock went back
			freed = now
		}
		p.cooling[addr] = freed
	}
	for _, addr := range from.Taken {
		p.cooling[addr] = now
	}
}
