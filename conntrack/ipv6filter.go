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
// at each place of an address. That remains open if the entry is gone meanwhile, or the kernel
// doesn't answer: to list everything is right on each kernel.
func (t *Table) testIPv6Filter(known *Entry) filterState {
	for at, addr := range known.places() {
		test := filterTest{known: known, at: at}
		_, err := t.list(Query{family: unix.AF_INET6, addr: addr, place: at}, test.look)
		if err != nil {
			return filterUntested
		}
		if state := test.state(); state != filterWorks {
			return state
		}
	}
	return filterWorks
}

// A filterTest is what the kernel lists for an address of a known entry at a place.
type filterTest struct {
	known *Entry
	at    place

	found, wrong bool
}

// look takes note of an entry that was listed. It keeps none.
func (f *filterTest) look(e *Entry) bool {
	if !f.wrong {
		f.found = f.found || bytes.Equal(e.name(), f.known.name())
		f.wrong = e.places()[f.at] != f.known.places()[f.at]
	}
	return false
}

func (f *filterTest) state() filterState {
	switch {
	case f.wrong:
		return filterInverted
	case f.found:
		return filterWorks
	}
	return filterUntested
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
