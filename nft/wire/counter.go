package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// Tally reads the counters of the chains whose names start with the prefix, or of one chain alone.
// A chain without rules isn't in the result.
//
// The kernel says that a dump was interrupted when anything changed in the network namespace; only
// what changes in our table can harm, and the caller holds the table's lock. So it isn't repeated.
func (c *Conn) Tally(prefix, chain string) (map[string]nft.Tally, error) {
	attrs := []netlink.Attribute{nameAttr(unix.NFTA_RULE_TABLE, nft.TableName)}
	if chain != "" {
		attrs = append(attrs, nameAttr(unix.NFTA_RULE_CHAIN, chain))
	}
	bodies, err := c.ask(unix.NFT_MSG_GETRULE, netlink.Dump, attrs...)
	if errors.Is(err, unix.ENOENT) {
		return map[string]nft.Tally{}, nil
	}
	if err != nil && !errors.Is(err, errInterrupted) {
		return nil, fmt.Errorf("reading counters: %w", err)
	}
	out := map[string]nft.Tally{}
	for _, body := range bodies {
		name, t, err := ruleTally(body, prefix)
		if err != nil {
			return nil, fmt.Errorf("reading counters of chain %s: %w", name, err)
		}
		if strings.HasPrefix(name, prefix) {
			out[name] = out[name].Plus(t)
		}
	}
	return out, nil
}

// ruleTally adds up the counters of a rule of our table, unless its chain's name doesn't start with
// the prefix.
func ruleTally(body []byte, prefix string) (chain string, t nft.Tally, err error) {
	var exprs []byte
	ours := false
	if err := decode(body, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			ours = ad.String() == nft.TableName
		case unix.NFTA_RULE_CHAIN:
			chain = ad.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			exprs = ad.Bytes()
		}
		return nil
	}); err != nil || !ours || !strings.HasPrefix(chain, prefix) {
		return chain, t, err
	}
	err = decode(exprs, func(ad *netlink.AttributeDecoder) error {
		counted, err := exprTally(ad.Bytes())
		t = t.Plus(counted)
		return err
	})
	return chain, t, err
}

func exprTally(body []byte) (nft.Tally, error) {
	name, data, err := splitExpr(body)
	if err != nil || name != "counter" {
		return nft.Tally{}, err
	}
	var counter expr.Counter
	if err := expr.Unmarshal(familyINet, data, &counter); err != nil {
		return nft.Tally{}, err
	}
	return nft.Tally{Packets: counter.Packets, Bytes: counter.Bytes}, nil
}
