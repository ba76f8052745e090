package server

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Why no address can be given: at first, and in the end.
var (
	errNoPodCIDR = errors.New("the node has no podCIDR yet")
	errExhausted = errors.New("no free address")
	errAllRest   = errors.New(
		"every address rests, as the record of those that were freed lately can't be read")
)

// allocator gives addresses out of the node's podCIDRs, each to one attachment at a time, and a
// freed one not before it has cooled down: other nodes may still send to its last owner. It is a
// value that does no I/O: the caller says what time it is, since the boot, and locks.
type allocator struct {
	coolDown time.Duration
	prefixes []netip.Prefix     // at most one of each family
	last     map[int]netip.Addr // the latest given, by the bits of its family
	// also addresses outside of prefixes, from before these changed
	taken    map[netip.Addr]struct{}
	cooling  map[netip.Addr]time.Duration // since when
	restTill time.Duration                // until then no address is given
}

func newAllocator(coolDown time.Duration) *allocator {
	return &allocator{
		coolDown: coolDown,
		last:     map[int]netip.Addr{},
		taken:    map[netip.Addr]struct{}{},
		cooling:  map[netip.Addr]time.Duration{},
	}
}

// setPrefixes takes the first valid prefix of each family.
func (p *allocator) setPrefixes(prefixes []netip.Prefix) {
	p.prefixes = nil
	for _, prefix := range prefixes {
		sameFamily := func(other netip.Prefix) bool {
			return other.Addr().Is4() == prefix.Addr().Is4()
		}
		if prefix.IsValid() && !prefix.Addr().Is4In6() &&
			!slices.ContainsFunc(p.prefixes, sameFamily) {
			p.prefixes = append(p.prefixes, prefix.Masked())
		}
	}
}

// allocate gives one address of each prefix, in their order, or none and an error.
func (p *allocator) allocate(now time.Duration) ([]netip.Addr, error) {
	if len(p.prefixes) == 0 {
		return nil, errNoPodCIDR
	}
	if now < p.restTill {
		return nil, fmt.Errorf("%w: for %s more", errAllRest, (p.restTill - now).Round(time.Second))
	}
	maps.DeleteFunc(p.cooling, func(_ netip.Addr, freed time.Duration) bool {
		return now-freed >= p.coolDown
	})
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
	// Of so many addresses in a row one is free, unless the prefix has fewer and they were all
	// seen.
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

// isGivable leaves out the network address, which is the node's own in the tunnel, and IPv4's
// broadcast address.
func isGivable(prefix netip.Prefix, addr netip.Addr) bool {
	return addr != prefix.Addr() && (addr.Is6() || prefix.Contains(addr.Next()))
}

// exhausted says why a prefix has no address to give.
func (p *allocator) exhausted(prefix netip.Prefix, now time.Duration) error {
	of := p.stats(prefix, now)
	if of.Cooling == 0 {
		return fmt.Errorf("%w in %s: %d of %d in use", errExhausted, prefix, of.InUse, of.Size)
	}
	wait := p.coolDown
	for addr, freed := range p.cooling {
		if prefix.Contains(addr) {
			wait = min(wait, p.coolDown-(now-freed))
		}
	}
	return fmt.Errorf(
		"%w in %s: %d of %d in use or cooling down, the first of %d that cool down for %s more",
		errExhausted, prefix, of.InUse+of.Cooling, of.Size, of.Cooling,
		max(0, wait).Round(time.Second))
}

// stats counts the addresses of a prefix.
func (p *allocator) stats(prefix netip.Prefix, now time.Duration) PoolStats {
	of := PoolStats{Prefix: prefix, Size: poolSize(prefix)}
	for addr := range p.taken {
		if prefix.Contains(addr) && isGivable(prefix, addr) {
			of.InUse++
		}
	}
	for addr, freed := range p.cooling {
		if prefix.Contains(addr) && isGivable(prefix, addr) && now-freed < p.coolDown {
			of.Cooling++
		}
	}
	of.Free = of.Size - min(of.Size, of.InUse+of.Cooling)
	return of
}

// poolSize is how many addresses of a prefix can be given, or the most that there is a number for.
func poolSize(prefix netip.Prefix) uint64 {
	hostBits := prefix.Addr().BitLen() - prefix.Bits()
	if hostBits >= 64 {
		return math.MaxUint64
	}
	size, kept := uint64(1)<<hostBits, uint64(1)
	if prefix.Addr().Is4() {
		kept = 2
	}
	return size - min(size, kept)
}

// claim takes an address that an attachment has had before.
func (p *allocator) claim(addr netip.Addr) {
	delete(p.cooling, addr)
	p.taken[addr] = struct{}{}
}

// release frees an address that a pod may have used, from now.
func (p *allocator) release(addr netip.Addr, now time.Duration) {
	delete(p.taken, addr)
	p.cooling[addr] = now
}

// restAll gives no address until all have cooled down: any may have been freed just now.
func (p *allocator) restAll(now time.Duration) { p.restTill = now + p.coolDown }

// giveBack frees an address that no pod has ever used, so that it needs no cool-down.
func (p *allocator) giveBack(addr netip.Addr) { delete(p.taken, addr) }
