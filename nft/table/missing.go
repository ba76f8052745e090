package table

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/wire"
)

// ErrNoNFTables says that the kernel has no nftables.
var ErrNoNFTables = errors.New("the kernel has no nf_tables")

// Missing lists those of the features that the kernel lacks. It asks by transactions that are
// refused whatever the kernel has, so that nothing changes; what it has of them as modules it may
// load. Where the table is there, nothing is asked: this kernel has carried it. Without nftables
// the error wraps ErrNoNFTables; who may not speak to them gets os.ErrPermission.
func Missing(ctx context.Context, opts Options,
	features []kernels.Feature) ([]kernels.Feature, error) {
	t, err := Open(opts)
	if lacks(err) {
		return nil, fmt.Errorf("%w: %w", ErrNoNFTables, err)
	} else if err != nil {
		return nil, err
	}
	missing, err := t.missing(ctx, features)
	return missing, errors.Join(err, t.Close())
}

func (t *Table) missing(ctx context.Context,
	features []kernels.Feature) (out []kernels.Feature, err error) {
	if exists, _, _, err := t.conn.ReadTable(); err != nil || exists {
		return nil, err
	}
	for _, f := range features {
		err := t.try(ctx, sampleOf(f.Name))
		if lacks(err) {
			out = append(out, f)
		} else if err != nil {
			return nil, fmt.Errorf("asking for %s: %w", f.Name, err)
		}
	}
	return out, nil
}

// try asks whether the kernel takes a ruleset, in an empty table.
func (t *Table) try(ctx context.Context, sample *nft.Ruleset) error {
	none := nft.NewRuleset()
	for _, op := range nft.Plan(none, nft.Diff(none, sample)).Prepare {
		if err := t.conn.Add(op, sample.Sets); err != nil {
			return err
		}
	}
	if err := t.conn.EndQuestion(); err != nil {
		return err
	}
	refusal, err := wire.TakesAll(t.flush(ctx))
	if refusal != nil {
		err = refusal
	}
	return errors.Join(err, t.connect(ctx))
}

// lacks reports whether an error is one by which a kernel says that it doesn't have what is asked
// for. Others, such as that there is no memory, say nothing of that.
func lacks(err error) bool {
	return slices.ContainsFunc([]error{unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.ERANGE,
		unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT}, func(e error) bool { return errors.Is(err, e) })
}

func sampleChain(feature string) string { return nft.Name("sample", feature) }

// sampleOf is a small ruleset that needs the feature. None has base chains: no packet meets it even
// for the moment until it is refused.
func sampleOf(feature string) *nft.Ruleset {
	r := nft.NewRuleset()
	chain := func(rules ...[]nft.Statement) {
		c := &nft.Chain{Name: sampleChain(feature)}
		for _, s := range rules {
			c.Rules = append(c.Rules, nft.Rule{Statements: s})
		}
		r.AddChain(c)
	}
	drop := nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}}
	switch feature {
	case kernels.Sets:
		ports, key := []nft.Field{nft.DstPort, nft.L4Proto}, []nft.Field{nft.SrcAddr6, nft.InIface}
		elements := map[nft.Element]nft.Verdict{nft.PortsElement(unix.IPPROTO_TCP, 1, 9): {}}
		r.AddSet(&nft.Set{Name: "ports", Key: ports, Interval: true, Elements: elements})
		r.AddSet(&nft.Set{Name: "map", Key: key, Verdicts: true})
		chain([]nft.Statement{nft.InSet{Fields: ports, Set: "ports"}, nft.Count{}, drop},
			[]nft.Statement{nft.Dispatch{Fields: key, Map: "map"}})
	case kernels.Tracking:
		key := []nft.Field{nft.SrcAddr4, nft.InIface, nft.OriginalSrc4}
		r.AddSet(&nft.Set{Name: "ends", Key: key})
		chain([]nft.Statement{nft.MatchCT{State: nft.CTRelated},
			nft.InSet{Fields: key, Set: "ends"}},
			[]nft.Statement{nft.MatchCTLabel{Bit: 127}, nft.SetCTLabel{Bit: 127}})
	case kernels.Resets:
		chain([]nft.Statement{nft.ResetTCP{}})
	case kernels.Samples:
		chain([]nft.Statement{nft.Sample{Group: 1, Prefix: "sample", PerSecond: 1}})
	case kernels.Routes:
		chain([]nft.Statement{nft.MatchNoRouteBack{}, drop},
			[]nft.Statement{nft.MatchRouteBack{}},
			[]nft.Statement{nft.MatchLocalSrc{}, nft.MatchLocalDst{}})
	case kernels.Untracked:
		chain([]nft.Statement{nft.NoTrack{}})
	case kernels.Translation:
		addTranslation(r, chain)
	}
	return r
}

func addTranslation(r *nft.Ruleset, chain func(...[]nft.Statement)) {
	key := []nft.Field{nft.L4Proto, nft.DstPort}
	var rules [][]nft.Statement
	for name, to := range map[string]string{"nat4": "192.0.2.1:80", "nat6": "[2001:db8::1]:80"} {
		target := netip.MustParseAddrPort(to)
		field := nft.DstAddr6
		if target.Addr().Is4() {
			field = nft.DstAddr4
		}
		r.AddSet(&nft.Set{Name: name, Key: key, Targets: field,
			Elements: map[nft.Element]nft.Verdict{
				nft.ProtoPortElement(unix.IPPROTO_TCP, 80): nft.NATTarget(target)}})
		rules = append(rules, []nft.Statement{nft.DNAT{Fields: key, Map: name}})
	}
	chain(append(rules, []nft.Statement{nft.Masquerade{FullyRandom: true}})...)
}
