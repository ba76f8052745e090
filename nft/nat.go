package nft

import (
	"fmt"
	"strconv"
)

// This file has the statements that translate addresses and ports, and one that leaves packets out
// of connection tracking.

// Family is the IP version of the map's targets.
func (d DNAT) Family(sets map[string]*Set) (int, error) {
	s := sets[d.Map]
	if s == nil || s.Targets.Family() == 0 {
		return 0, fmt.Errorf("%s is no NAT map", d.Map)
	}
	for _, f := range d.Fields {
		if f.Family() != 0 && f.Family() != s.Targets.Family() {
			return 0, fmt.Errorf("%s can't be translated to %s", f, s.Targets)
		}
	}
	return s.Targets.Family(), nil
}

// String is the statement as nft lists it, save for the IP version where no field has one: that is
// the map's, and Ruleset.String knows it.
func (d DNAT) String() string {
	for _, f := range d.Fields {
		if f.Family() != 0 {
			return d.text(f.Family())
		}
	}
	return d.text(0)
}

func (d DNAT) text(family int) string {
	return "dnat " + familyWord(family) + "to " + joinFields(d.Fields) + " map @" + d.Map
}

func (s SNAT) String() string {
	addr := s.Addr.Unmap()
	family := 4
	if addr.Is6() {
		family = 6
	}
	return "snat " + familyWord(family) + "to " + addr.String()
}

func familyWord(family int) string {
	switch family {
	case 4:
		return "ip "
	case 6:
		return "ip6 "
	}
	return ""
}

func (m Masquerade) String() string {
	text := "masquerade"
	if m.First != 0 {
		text += " to :" + strconv.Itoa(int(m.First))
		if m.Last != m.First {
			text += "-" + strconv.Itoa(int(m.Last))
		}
	}
	if m.FullyRandom {
		text += " fully-random"
	}
	return text
}

func (MatchDNATed) String() string { return "ct status dnat" }
func (NoTrack) String() string     { return "notrack" }
