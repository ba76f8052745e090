package kernels

// A Bug is one of Linux that concerns what Sluice does, or would if Sluice did it otherwise.
type Bug struct {
	Name   string // for the metric and the Event
	What   string
	CVE    string // empty: none is known
	Commit string // that mends it
	Arch   string // as Go calls it; empty: any

	Since Version
	// Fixed are the first mended releases, in ascending order, one for each line that got the mend;
	// the last is the line that had it from its start. A line between that isn't there has the bug,
	// or, if Open, may have got the mend without our knowledge.
	Fixed []Version
	Open  bool

	Effect  string // what a user sees; empty if it is avoided
	Avoided string // how we avoid it, so that nobody sees it
}

// Bugs lists what is known, and where it is mended.
func Bugs() []Bug {
	return []Bug{
		{
			Name: "port-ranges", CVE: "CVE-2024-57947", Commit: "791a615b7ad2",
			What: "a lookup in ranges of several fields leaves bits behind, which a later lookup " +
				"takes for its own, if the first field has fewer masks than another (pipapo)",
			Since: Version{5, 6, 0},
			Fixed: []Version{{5, 10, 247}, {5, 15, 165}, {6, 1, 103}, {6, 6, 44}, {6, 10, 3},
				{6, 11, 0}},
			Avoided: portsFirst,
		},
		{
			Name: "port-ranges-avx2", CVE: "CVE-2025-38120", Commit: "ea77c397bff8", Arch: "amd64",
			What:  "the same in the code for processors with AVX2, where it was mended later",
			Since: Version{5, 7, 0},
			Fixed: []Version{{5, 15, 186}, {6, 1, 142}, {6, 6, 94}, {6, 12, 34}, {6, 15, 3},
				{6, 16, 0}},
			Avoided: portsFirst,
		},
		{
			Name: "interval-sets", Commit: "7e43e0a1141d",
			What: "while a transaction changes ranges of one field, a lookup can miss one that " +
				"stays, or take an address right behind a range for one in it (rbtree). Seen on " +
				"6.1.176 and 6.12.95, not on 6.18.44 and 7.3.4; a60f7bf4a152, in 6.12.48 and " +
				"6.17, doesn't mend all of it",
			Since: Version{3, 13, 0}, Fixed: []Version{{7, 0, 0}}, Open: true,
			Avoided: "sets of ranges are named by what they hold, and never change: another set " +
				"replaces them",
		},
		{
			Name: "pipapo-generation", Commit: "c4eaca2e1052",
			What: "a lookup in ranges of several fields can miss one that stays, while a " +
				"transaction is committed (pipapo)",
			Since: Version{5, 6, 0}, Fixed: []Version{{6, 12, 48}, {6, 17, 0}}, Open: true,
			Avoided: neverChanged,
		},
		{
			Name: "pipapo-expired", CVE: "CVE-2026-23351", Commit: "9df95785d3d8",
			What:  "elements that expire are freed while lookups use them (pipapo)",
			Since: Version{5, 6, 0},
			Fixed: []Version{{5, 10, 253}, {5, 15, 203}, {6, 1, 167}, {6, 6, 130}, {6, 12, 77},
				{6, 18, 17}, {6, 19, 7}, {7, 0, 0}},
			Avoided: "no element has a timeout",
		},
		{
			Name: "pipapo-drop", CVE: "CVE-2026-43453",
			What:  "removing an element reads past an array of 16 fields (pipapo)",
			Since: Version{5, 6, 0},
			Fixed: []Version{{5, 10, 253}, {5, 15, 203}, {6, 1, 167}, {6, 6, 130}, {6, 12, 78},
				{6, 18, 19}, {6, 19, 9}, {7, 0, 0}},
			Avoided: neverChanged + "; and they have two fields",
		},
		{
			Name: "pipapo-avx2-expired", CVE: "CVE-2026-43114", Commit: "d3c0037ffe12",
			Arch: "amd64",
			What: "an element that has expired, or is flushed in the same transaction, hides " +
				"what a lookup looks for: another is found, or a false EEXIST (pipapo with AVX2)",
			Since: Version{5, 7, 0},
			Fixed: []Version{{5, 10, 258}, {5, 15, 209}, {6, 1, 175}, {6, 6, 136}, {6, 12, 83},
				{6, 18, 24}, {6, 19, 14}, {7, 0, 0}},
			Avoided: "no element has a timeout, and " + neverChanged,
		},
		{
			Name: "conntrack-ipv6-filter", Commit: "1ae2d094b020",
			What: "a list of connections by an IPv6 address has all but those of the address",
			// Not mended in 7.2.13; mended in 7.3.4. Releases between weren't looked at.
			Since: Version{5, 8, 0}, Fixed: []Version{{6, 12, 117}, {7, 3, 4}}, Open: true,
			Avoided: "the kernel is tried out; while it has this, IPv6 connections are listed " +
				"whole, and looked through",
		},
	}
}

const (
	portsFirst = "the ports, which have the most masks, are the first field (with the protocol " +
		"first, a rule with many port ranges allowed the same ports of another protocol as well)"
	neverChanged = "sets of ports are named by what they hold, and never change"
)
