package conntrack

import (
	"bytes"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The kernel's filter for IPv6 addresses has been inverted since Linux 5.8: it finds all entries
// but those of the address. Kernels mend that at different times (bug conntrack-ipv6-filter of
// docs/kernels.md). So the kernel is asked for what is known to be there, once there is an entry to
// ask for. Until then, and if it is inverted, all IPv6 entries are listed.

// ipv6Filter is the kernel's, and so the process': a filterState.
var ipv6Filter atomic.Int32

type filterState = int32

const (
	filterUntested filterState = iota
	filterWorks
	filterInverted
)

// FiltersIPv6 reports whether the kernel is known to find entries by their IPv6 addresses. Without
// that, a search for one goes through all IPv6 entries.
func FiltersIPv6() bool { return ipv6Filter.Load() == filterWorks }

// testIPv6Filter finds out whether the kernel's filter finds an entry, and none of other addresses,
// at each place of an address. If the entry is gone meanwhile, that remains open.
func (t *Table) testIPv6Filter(known *Entry) (filterState, error) {
	state := filterWorks
	for at, addr := range known.places() {
		var found, wrong bool
		_, err := t.list(Query{family: unix.AF_INET6, addr: addr, place: at}, func(e *Entry) bool {
			found = found || bytes.Equal(e.name(), known.name())
			wrong = wrong || e.places()[at] != addr
			return false
		})
		if err != nil {
			return filterUntested, err
		}
		if wrong {
			return filterInverted, nil
		}
		if !found {
			state = filterUntested
		}
	}
	return state, nil
}

// asked are the queries to make of a kernel that filters IPv6 addresses, or doesn't.
func asked(queries []Query, filtersIPv6 bool) []Query {
	if filtersIPv6 {
		return queries
	}
	out := make([]Query, len(queries))
	for i, q := range queries {
		if q.addr.Is6() {
			q = Query{family: unix.AF_INET6}
		}
		out[i] = q
	}
	return out
}
