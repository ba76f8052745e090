package wire

import (
	"fmt"

	"github.com/sluice-net/sluice/nft"
)

// encodeRule returns the expressions of a rule of a ruleset with these sets.
func encodeRule(r nft.Rule, sets map[string]*nft.Set) ([][]byte, error) {
	e := &encoder{sets: sets, proto: -1}
	for _, s := range r.Statements {
		err := e.statement(s)
		if err == nil {
			err = e.err
		}
		if err != nil {
			return nil, fmt.Errorf("encoding %q: %w", s, err)
		}
	}
	return e.exprs, nil
}

// statement adds the expressions of a statement.
func (e *encoder) statement(s nft.Statement) error {
	switch s := s.(type) {
	case nft.MatchIface:
		return e.matchIface(s)
	case nft.MatchAddr:
		return e.matchAddr(s)
	case nft.MatchPrefix:
		return e.matchPrefix(s)
	case nft.MatchProto:
		return e.matchProto(s)
	case nft.MatchPort:
		return e.matchPort(s)
	case nft.MatchCT:
		return e.matchCT(s)
	case nft.MatchND:
		return e.matchND()
	case nft.MatchTCPNoSYN:
		return e.matchTCPNoSYN()
	case nft.MatchLocalSrc:
		return e.matchLocalSrc()
	case nft.MatchNoRouteBack:
		return e.matchRouteBack(0)
	case nft.MatchRouteBack:
		return e.matchRouteBack(1)
	case nft.InSet:
		return e.inSet(s)
	case nft.MatchLocalDst:
		return e.matchLocalDst()
	case nft.MatchDNATed:
		return e.matchDNATed()
	case nft.MatchCTLabel:
		return e.matchCTLabel(s)
	}
	return e.action(s)
}

// action is statement for what isn't a match.
func (e *encoder) action(s nft.Statement) error {
	switch s := s.(type) {
	case nft.Dispatch:
		return e.dispatch(s)
	case nft.Count:
		return e.count()
	case nft.Sample:
		return e.sample(s)
	case nft.Do:
		return e.do(s)
	case nft.ResetTCP:
		return e.resetTCP()
	case nft.DNAT:
		return e.dnat(s)
	case nft.SNAT:
		return e.snat(s)
	case nft.Masquerade:
		return e.masquerade(s)
	case nft.NoTrack:
		return e.noTrack()
	case nft.SetCTLabel:
		return e.setCTLabel(s)
	}
	return fmt.Errorf("%T can't be written", s)
}
