package others

import (
	"fmt"
	"strings"
)

// Outcome is what became of a trial's packets of one family.
type Outcome uint8

const (
	// NotTried is a family without addresses in the TrialOptions.
	NotTried Outcome = iota
	// Passed means that a packet came through.
	Passed
	// Blocked means that none came through in time.
	Blocked
	// ForwardingOff means that the node forwards no packets of the family at all:
	// net.ipv4.ip_forward or net.ipv6.conf.all.forwarding is 0, or it has no IPv6.
	ForwardingOff
)

// String is the outcome in lower case, fit for a metric's label.
func (o Outcome) String() string {
	switch o {
	case NotTried:
		return "not tried"
	case Passed:
		return "passed"
	case Blocked:
		return "blocked"
	case ForwardingOff:
		return "forwarding off"
	default:
		return fmt.Sprintf("Outcome(%d)", uint8(o))
	}
}

// Result is what became of a trial's packets.
type Result struct {
	IPv4, IPv6 Outcome
}

// Explain says in a sentence for each family what keeps forwarded packets away, with the names of
// the blockers that judge it, or returns "" if nothing does.
func (r Result) Explain(blockers []Blocker) string {
	sentences := []string{
		r.IPv4.explain("IPv4", "net.ipv4.ip_forward", Named(blockers, true)),
		r.IPv6.explain("IPv6", "net.ipv6.conf.all.forwarding", Named(blockers, false)),
	}
	return strings.Join(strings.Fields(strings.Join(sentences, " ")), " ")
}

func (o Outcome) explain(family, sysctl, blockers string) string {
	switch {
	case o == ForwardingOff:
		return fmt.Sprintf("This node doesn't forward %s: %s isn't 1.", family, sysctl)
	case o != Blocked:
		return ""
	case blockers == "":
		return fmt.Sprintf("Forwarded %s packets don't come through although no chain drops by "+
			"policy: some rule drops or rejects them.", family)
	default:
		return fmt.Sprintf("Forwarded %s packets don't come through: blocked by %s.", family,
			blockers)
	}
}

// Named names the blockers that judge IPv4 packets, or those that judge IPv6: each of them may be
// the one that drops.
func Named(blockers []Blocker, is4 bool) string {
	family := familyIP6
	if is4 {
		family = familyIP
	}
	var names []string
	for _, b := range blockers {
		if b.judges(family) {
			names = append(names, b.String())
		}
	}
	return strings.Join(names, " or ")
}
