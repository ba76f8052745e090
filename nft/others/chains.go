package others

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
)

// tableOwned is NFT_TABLE_F_OWNER (linux/netfilter/nf_tables.h): only the process that made the
// table may change it.
const tableOwned = 2

// patience is how long the kernel may take to answer.
const patience = 5 * time.Second

// baseChain is a base chain on one hook of a table that isn't ours.
type baseChain struct {
	table   *nftables.Table
	owned   bool // by a process: no other may change the table
	dormant bool // the table judges nothing
	chain   *nftables.Chain
	rules   []*nftables.Rule

	// The table's chain DOCKER-USER, at one of its base chains: the one that leads there, if one
	// does; otherwise nil.
	users        *nftables.Chain
	userRules    []*nftables.Rule
	usersReached bool
}

// dial connects to nftables in the thread's network namespace. The connection serves until
// deadline.
func dial(deadline time.Time) (*nftables.Conn, error) {
	limit := func(c *netlink.Conn) error { return c.SetDeadline(deadline) }
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(limit))
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	return conn, nil
}

func readChains(h Hook) ([]*baseChain, error) {
	conn, err := dial(time.Now().Add(patience))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseLasting() }() // nothing is queued
	return listChains(conn, h)
}

// listChains reads the base chains that judge packets on a hook, with their rules. A chain whose
// rules can't be read is in the result without them, and in the error.
func listChains(conn *nftables.Conn, h Hook) ([]*baseChain, error) {
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	var found []*baseChain
	var errs []error
	for _, t := range tables {
		if !judges(t) {
			continue
		}
		flags := tableFlags(t)
		var ofTable []*baseChain
		for _, c := range chains {
			if sameTable(c.Table, t) && h.has(c) {
				f := &baseChain{table: t, owned: flags&tableOwned != 0,
					dormant: flags&unix.NFT_TABLE_F_DORMANT != 0, chain: c}
				f.rules, err = readRules(conn, t, c)
				errs = append(errs, err)
				ofTable = append(ofTable, f)
			}
		}
		errs = append(errs, addUsers(conn, ofTable, chains))
		found = append(found, ofTable...)
	}
	return found, errors.Join(errs...)
}

func readRules(conn *nftables.Conn, t *nftables.Table,
	c *nftables.Chain) ([]*nftables.Rule, error) {
	rules, err := conn.GetRules(t, c)
	if err != nil {
		return nil, fmt.Errorf("reading the rules of nftables table %s %s, chain %s: %w",
			familyName(t.Family), t.Name, c.Name, err)
	}
	return rules, nil
}

// addUsers adds the table's chain DOCKER-USER, if there is one, to that of its base chains which
// leads there, or to any.
func addUsers(conn *nftables.Conn, ofTable []*baseChain, all []*nftables.Chain) (err error) {
	if len(ofTable) == 0 {
		return nil
	}
	i := slices.IndexFunc(all, func(c *nftables.Chain) bool {
		return sameTable(c.Table, ofTable[0].table) && c.Name == dockerUser
	})
	if i < 0 {
		return nil
	}
	f := ofTable[0]
	for _, candidate := range ofTable {
		if slices.ContainsFunc(candidate.rules,
			func(r *nftables.Rule) bool { return jumpsTo(r) == dockerUser }) {
			f, candidate.usersReached = candidate, true
			break
		}
	}
	f.users = all[i]
	f.userRules, err = readRules(conn, f.table, f.users)
	return err
}

// tableFlags corrects the library's reading of them: it takes the kernel's big-endian number for
// one in the machine's order.
func tableFlags(t *nftables.Table) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, t.Flags))
}

// judges reports whether a table may judge IP packets; ours doesn't count.
func judges(t *nftables.Table) bool {
	return familyName(t.Family) != "" &&
		(t.Family != nftables.TableFamilyINet || t.Name != names.Table)
}

// familyName is the family's name in nftables, or "" for a family without IP packets.
func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return familyIP
	case nftables.TableFamilyIPv6:
		return familyIP6
	case nftables.TableFamilyINet:
		return familyINet
	default:
		return ""
	}
}

func sameTable(a, b *nftables.Table) bool { return a.Name == b.Name && a.Family == b.Family }

// blocker describes the chain, whether it blocks or not.
func (f *baseChain) blocker() Blocker {
	b := Blocker{
		Backend: NFTables, Family: familyName(f.table.Family), Table: f.table.Name,
		Chain: f.chain.Name, Policy: verdictAccept,
	}
	if f.chain.Policy != nil && *f.chain.Policy == nftables.ChainPolicyDrop {
		b.Policy = verdictDrop
	} else if len(f.rules) > 0 {
		b.lastRule = takesAll(f.rules[len(f.rules)-1])
	}
	return b
}

// takesAll returns "drop" or "reject" for a rule that does so to every packet, and "" for any
// other.
func takesAll(r *nftables.Rule) string {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Match:
			if e.Name != "comment" {
				return ""
			}
		case *expr.Reject:
			return verdictReject
		case *expr.Target:
			if e.Name == "REJECT" {
				return verdictReject
			}
			return ""
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return verdictDrop
			}
			return ""
		default:
			return ""
		}
	}
	return ""
}

// jumpsTo returns the chain to which a rule sends packets, or "".
func jumpsTo(r *nftables.Rule) string {
	for _, e := range r.Exprs {
		v, ok := e.(*expr.Verdict)
		if ok && (v.Kind == expr.VerdictJump || v.Kind == expr.VerdictGoto) {
			return v.Chain
		}
	}
	return ""
}
