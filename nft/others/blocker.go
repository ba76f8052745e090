package others

import (
	"errors"
	"fmt"
	"strings"
)

// What a Blocker's chain belongs to.
const (
	NFTables       = "nftables"
	LegacyIPTables = "iptables-legacy"
)

// What ends a chain, in the spelling of nftables.
const (
	verdictAccept = "accept"
	verdictDrop   = "drop"
	verdictReject = "reject"
)

// The address families of tables, in the spelling of nftables.
const (
	familyIP   = "ip"
	familyIP6  = "ip6"
	familyINet = "inet"
)

// Blocker is a base chain that drops or rejects packets that none of its rules accepted.
type Blocker struct {
	Backend string // NFTables or LegacyIPTables
	Family  string // "ip", "ip6" or "inet", which is both
	Table   string
	Chain   string
	Policy  string // "drop", or "accept" where it is the last rule that blocks
	// "drop" or "reject" where the policy is "accept" and the last rule does so to all packets;
	// otherwise ""
	lastRule string
}

// String names the chain as a person would.
func (b Blocker) String() string {
	if b.Backend == LegacyIPTables {
		program := "iptables"
		if b.Family == familyIP6 {
			program = "ip6tables"
		}
		return fmt.Sprintf("legacy %s table %s, chain %s (%s)", program, b.Table, b.Chain,
			b.end(strings.ToUpper))
	}
	return fmt.Sprintf("nftables table %s %s, chain %s (%s)", b.Family, b.Table, b.Chain,
		b.end(strings.ToLower))
}

// end describes the chain's end, with verdicts in the backend's letter case.
func (b Blocker) end(letters func(string) string) string {
	end := "policy " + letters(b.Policy)
	if b.lastRule != "" {
		end += ", last rule " + letters(b.lastRule)
	}
	return end
}

// judges reports whether packets of a family ("ip" or "ip6") pass the chain.
func (b Blocker) judges(family string) bool { return b.Family == family || b.Family == familyINet }

// Blockers returns the base chains on a hook that block by their policy or their last rule: those
// of nftables, without the table `inet sluice`, dormant tables and the bridge family, and those of
// legacy iptables. One that blocks by its end may still accept what pods need by an earlier rule:
// see TryForwarding. After an error the result has what could be read.
func Blockers(h Hook) ([]Blocker, error) {
	chains, err := readChains(h)
	errs := []error{err}
	var found []Blocker
	for _, c := range chains {
		if b := c.blocker(); b.blocks() && !c.dormant {
			found = append(found, b)
		}
	}
	for _, f := range legacyFamilies() {
		t, err := f.read(threadNet, h)
		errs = append(errs, err)
		if b := t.blocker(); b.blocks() {
			found = append(found, b)
		}
	}
	return found, errors.Join(errs...)
}

func (b Blocker) blocks() bool { return b.Policy == verdictDrop || b.lastRule != "" }
