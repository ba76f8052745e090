package others

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
)

// Flannel is a network without policies, as Leftover.Of.
const Flannel = "flannel"

// Leftover is a table in which there are chains of another policy engine or pod network.
type Leftover struct {
	Of     string // who makes such chains, such as Calico
	Where  string // such as "nftables table ip filter"
	Chains []string
}

// String says what is where; of many chains, the first few.
func (l Leftover) String() string {
	const few = 3
	chains, more := l.Chains, ""
	if n := len(chains) - few; n > 0 {
		chains, more = chains[:few], fmt.Sprintf(" and %d more", n)
	}
	if len(chains) == 0 {
		return l.Of + ": " + l.Where
	}
	return fmt.Sprintf("%s: %s, chains %s%s", l.Of, l.Where, strings.Join(chains, ", "), more)
}

// engines are how others' chains, and tables that are theirs alone, begin. kube-proxy's aren't
// among them: they are in use beside Sluice.
func engines() map[string][]string {
	return map[string][]string{
		"Calico":         {"cali-", "cali_", "felix-"},
		"Cilium":         {"CILIUM_", "OLD_CILIUM_"},
		Flannel:          {"FLANNEL-"},
		"kube-router":    {"KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-"},
		"Weave Net":      {"WEAVE"},
		"Antrea":         {"ANTREA-"},
		"OVN-Kubernetes": {"OVN-KUBE-"},
	}
}

// theirTables are nftables tables that are one engine's alone.
func theirTables() map[string]string {
	return map[string]string{
		"calico":                "Calico",
		"flannel-ipv4":          Flannel,
		"flannel-ipv6":          Flannel,
		"kube-network-policies": "kube-network-policies",
		"ovn-kubernetes":        "OVN-Kubernetes",
	}
}

// engineOf is whose chain a name is, or "".
func engineOf(chain string) string {
	for engine, prefixes := range engines() {
		for _, p := range prefixes {
			if strings.HasPrefix(chain, p) {
				return engine
			}
		}
	}
	return ""
}

// Leftovers returns what other engines have in the kernel, whether they still run or not: in
// nftables, where the common iptables program writes too, and in legacy iptables. They are known by
// the names of their chains and tables. Sorted; after an error it has what could be read.
func Leftovers() ([]Leftover, error) {
	found, err := leftoverTables()
	errs := []error{err}
	for _, f := range legacyFamilies() {
		tables, err := f.tables(threadNet)
		errs = append(errs, err)
		for _, table := range tables {
			chains, err := f.chains(table)
			if err != nil {
				errs = append(errs,
					fmt.Errorf("reading legacy %s table %s: %w", f.program, table, err))
			}
			where := fmt.Sprintf("legacy %s table %s", f.program, table)
			found = append(found, leftoversIn(where, "", chains)...)
		}
	}
	slices.SortFunc(found, func(a, b Leftover) int {
		return strings.Compare(a.Of+a.Where, b.Of+b.Where)
	})
	return found, errors.Join(errs...)
}

func (f legacyFamily) chains(table string) ([]string, error) {
	_, entries, err := f.fetch(table)
	if err != nil {
		return nil, err
	}
	return f.chainsOf(entries)
}

// leftoverTables is Leftovers in nftables.
func leftoverTables() (found []Leftover, err error) {
	conn, err := dial(time.Now().Add(patience))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseLasting() }() // nothing is queued
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	for _, t := range tables {
		if !judges(t) {
			continue
		}
		var names []string
		for _, c := range chains {
			if sameTable(c.Table, t) {
				names = append(names, c.Name)
			}
		}
		found = append(found, leftoversIn(tableText(t), theirTables()[t.Name], names)...)
	}
	return found, nil
}

func tableText(t *nftables.Table) string {
	return fmt.Sprintf("nftables table %s %s", familyName(t.Family), t.Name)
}

// leftoversIn sorts a table's chains by whose they are. Of a table that is one engine's alone, all
// are its.
func leftoversIn(where, owner string, chains []string) (found []Leftover) {
	byEngine := map[string][]string{}
	if owner != "" {
		byEngine[owner] = nil
	}
	for _, c := range chains {
		if of := engineOf(c); owner != "" {
			byEngine[owner] = append(byEngine[owner], c)
		} else if of != "" {
			byEngine[of] = append(byEngine[of], c)
		}
	}
	for of, chains := range byEngine {
		slices.Sort(chains)
		found = append(found, Leftover{Of: of, Where: where, Chains: chains})
	}
	return found
}
