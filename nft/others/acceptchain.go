package others

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Where addresses are in the IP headers.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
)

// ensureChains does what Ensure says in nftables.
func ensureChains(ctx context.Context, networks []netip.Prefix) (changed bool, err error) {
	deadline := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	conn, err := dial(deadline)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.CloseLasting() }() // nothing is queued
	chains, err := listChains(conn, Forward)
	errs := []error{err}
	for _, f := range chains {
		for _, p := range f.places(networks) {
			c, err := p.ensure(deadline)
			changed = changed || c
			errs = append(errs, err)
		}
	}
	return changed, errors.Join(errs...)
}

// place is a chain and the accepting rules that it should have.
type place struct {
	in    *baseChain
	chain *nftables.Chain
	rules []*nftables.Rule
	want  [][]expr.Any
}

// places returns the chains in which rules of ours may be: the base chain and DOCKER-USER.
func (f *baseChain) places(networks []netip.Prefix) []place {
	var want [][]expr.Any
	family := familyName(f.table.Family)
	if f.needsAccept() {
		for _, n := range ofFamily(networks, family) {
			want = append(want, acceptRules(family, n)...)
		}
	}
	base := place{in: f, chain: f.chain, rules: f.rules}
	users := place{in: f, chain: f.users, rules: f.userRules}
	if f.usersReached {
		users.want = want
	} else {
		base.want = want
	}
	if f.users == nil {
		return []place{base}
	}
	return []place{users, base}
}

// needsAccept reports whether a rule or the policy of the chain may drop packets of pods.
func (f *baseChain) needsAccept() bool {
	if f.dormant {
		return false
	}
	if f.blocker().blocks() {
		return true
	}
	others := slices.ContainsFunc(f.rules, func(r *nftables.Rule) bool { return !ours(r) })
	return others && f.table.Family != nftables.TableFamilyINet && f.table.Name == legacyFilter &&
		f.chain.Name == Forward.legacy
}

// ensure makes the chain's rules of ours those that are wanted, all at once.
func (p place) ensure(deadline time.Time) (changed bool, err error) {
	var have [][]expr.Any
	var after uint64 // handle of the rule behind which ours belong; 0: at the head
	head := true
	for _, r := range p.rules {
		if ours(r) {
			have = append(have, r.Exprs)
			continue
		}
		if head = head && strings.HasPrefix(jumpsTo(r), kubeProxy); head {
			after = r.Handle
		}
	}
	if len(have) == 0 && len(p.want) == 0 || reflect.DeepEqual(have, p.want) {
		return false, nil
	}
	if err := p.replace(deadline, after); err != nil {
		return false, fmt.Errorf("changing nftables table %s %s, chain %s: %w",
			familyName(p.in.table.Family), p.in.table.Name, p.chain.Name, err)
	}
	return true, nil
}

// replace deletes the chain's rules of ours and adds those wanted, behind the rule with a handle
// or, without one, at the head. After a failed transaction its answers may remain in the
// connection, so each transaction has its own connection.
func (p place) replace(deadline time.Time, after uint64) error {
	conn, err := dial(deadline)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }() // nothing is queued
	for _, r := range p.rules {
		if ours(r) {
			gone := &nftables.Rule{Table: p.in.table, Chain: p.chain, Handle: r.Handle}
			if err := conn.DelRule(gone); err != nil {
				return err
			}
		}
	}
	// Each goes in front of the one before.
	for _, exprs := range slices.Backward(p.want) {
		rule := &nftables.Rule{Table: p.in.table, Chain: p.chain, Exprs: exprs, UserData: mark(),
			Position: after}
		if after == 0 {
			conn.InsertRule(rule)
		} else {
			conn.AddRule(rule)
		}
	}
	err = conn.Flush()
	if p.in.owned && errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: %w", errOwned, err)
	}
	return err
}

// mark is the comment as rules carry it.
func mark() []byte { return userdata.AppendString(nil, userdata.TypeComment, comment) }

func ours(r *nftables.Rule) bool { return bytes.Equal(r.UserData, mark()) }

// acceptRules returns two rules for tables of a family: one accepts packets from the network, one
// packets to it.
func acceptRules(family string, network netip.Prefix) [][]expr.Any {
	offsets := []uint32{source4, destination4}
	proto := byte(unix.NFPROTO_IPV4)
	if network.Addr().Is6() {
		offsets, proto = []uint32{source6, destination6}, unix.NFPROTO_IPV6
	}
	var rules [][]expr.Any
	for _, offset := range offsets {
		var exprs []expr.Any
		if family == familyINet {
			exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
				equals([]byte{proto}))
		}
		addr := network.Addr().AsSlice()
		length := uint32(len(addr))
		exprs = append(exprs, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader,
			Offset: offset, Len: length})
		if !network.IsSingleIP() {
			mask := net.CIDRMask(network.Bits(), network.Addr().BitLen())
			exprs = append(exprs, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length,
				Mask: mask, Xor: make([]byte, length)})
		}
		rules = append(rules, append(exprs, equals(addr), &expr.Verdict{Kind: expr.VerdictAccept}))
	}
	return rules
}

func equals(value []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value} }
