package ruleworld

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/nft"
)

// Writable says what the kernel would refuse of a ruleset, or nft of its listing: names,
// references, elements that don't fit their set, ranges that overlap.
func Writable(r *nft.Ruleset) error {
	for _, name := range slices.Concat(slices.Collect(maps.Keys(r.Sets)),
		slices.Collect(maps.Keys(r.Chains))) {
		if len(name) > 255 || strings.Trim(name,
			"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") != "" {
			return fmt.Errorf("the name %q", name)
		}
	}
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			for _, s := range rule.Statements {
				if err := refersWell(r, s); err != nil {
					return fmt.Errorf("chain %s: %s: %w", c.Name, rule, err)
				}
			}
		}
	}
	for _, s := range r.Sets {
		if err := elementsFit(r, s); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	return nil
}

func refersWell(r *nft.Ruleset, s nft.Statement) error {
	fits := func(name string, fields []nft.Field) error {
		if set := r.Sets[name]; set == nil || len(set.Key) != len(fields) {
			return errors.New("no set for it")
		}
		return nil
	}
	switch s := s.(type) {
	case nft.InSet:
		return fits(s.Set, s.Fields)
	case nft.Dispatch:
		return fits(s.Map, s.Fields)
	case nft.MatchPort:
		if s.First == 0 || s.First > s.Last {
			return errors.New("no range")
		}
	case nft.Do:
		if s.Kind == nft.Jump && r.Chains[s.Chain] == nil {
			return errors.New("no chain")
		}
	}
	return nil
}

func elementsFit(r *nft.Ruleset, s *nft.Set) error {
	var last nft.Element
	by := func(a, b nft.Element) int {
		return strings.Compare(inOrder(s, a).First, inOrder(s, b).First)
	}
	for _, e := range slices.SortedFunc(maps.Keys(s.Elements), by) {
		if strings.HasPrefix(e.Text(s.Key), "0x") || s.Interval == (e.Last == "") {
			return fmt.Errorf("%s isn't of its type", e)
		}
		this := inOrder(s, e)
		if s.Interval && (this.Last < this.First || inOrder(s, last).Last >= this.First) {
			return fmt.Errorf("%s after %s", e.Text(s.Key), last.Text(s.Key))
		}
		if v := s.Elements[e]; v.Kind == nft.Jump && r.Chains[v.Chain] == nil {
			return fmt.Errorf("no chain %s", v.Chain)
		}
		last = e
	}
	return nil
}

// inOrder is an element of which the first field, a range, comes after the others, which are single
// values, so that ranges are disjoint if they are as numbers.
func inOrder(s *nft.Set, e nft.Element) nft.Element {
	if !s.Interval || len(s.Key) == 1 || e.First == "" {
		return e
	}
	n := 4 * s.Key[0].Words()
	return nft.Element{First: e.First[n:] + e.First[:n], Last: e.Last[n:] + e.Last[:n]}
}
