package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
)

// table returns the library's name for our table.
func table() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
}

// add queues an operation for the next flush.
func (c *conn) add(op Op) error {
	switch op.Kind {
	case AddTable:
		c.lib.AddTable(table())
		c.queued("adding table " + TableName)
	case AddChain:
		c.lib.AddChain(libChain(op.Chain))
		c.queued("adding chain " + op.Chain.Name)
	case AddRules:
		return c.addRules(op)
	case FlushChain:
		c.lib.FlushChain(libChain(op.Chain))
		c.queued("flushing chain " + op.Chain.Name)
	case DeleteChain:
		c.lib.DelChain(libChain(op.Chain))
		c.queued("deleting chain " + op.Chain.Name)
	case AddSet:
		set, err := libSet(op.Set)
		if err == nil {
			// The library would number sets with a global variable that isn't
			// safe for two connections. The number has to be unique in a
			// transaction only.
			c.setID++
			set.ID = c.setID
			err = c.lib.AddSet(set, nil)
		}
		if err != nil {
			return fmt.Errorf("adding set %s: %w", op.Set.Name, err)
		}
		c.queued("adding set " + op.Set.Name)
	case SetElements:
		return c.setElements(op)
	case DeleteSet:
		c.lib.DelSet(&nftables.Set{Table: table(), Name: op.Set.Name})
		c.queued("deleting set " + op.Set.Name)
	}
	return nil
}

// deleteOther queues the deletion of what is none of ours.
func (c *conn) deleteOther(o thing) {
	if o.flowtable {
		c.lib.DelFlowtable(&nftables.Flowtable{Table: table(), Name: o.name})
	} else {
		c.lib.DeleteObject(&nftables.NamedObj{Table: table(), Name: o.name, Type: nftables.ObjType(o.kind)})
	}
	c.queued("deleting " + o.String())
}

func libChain(c *Chain) *nftables.Chain {
	chain := &nftables.Chain{Table: table(), Name: c.Name}
	if c.Base != nil {
		hook := nftables.ChainHook(c.Base.Hook)
		priority := nftables.ChainPriority(c.Base.Priority)
		policy := nftables.ChainPolicyAccept
		chain.Type, chain.Hooknum, chain.Priority, chain.Policy = nftables.ChainTypeFilter, &hook, &priority, &policy
	}
	return chain
}

func (c *conn) addRules(op Op) error {
	for i, r := range op.Rules {
		exprs, err := encodeRule(r)
		if err != nil {
			return fmt.Errorf("adding rule %d to chain %s: %w", i+1, op.Chain.Name, err)
		}
		rule := &nftables.Rule{Table: table(), Chain: &nftables.Chain{Name: op.Chain.Name}, Exprs: exprs}
		if r.Comment != "" {
			rule.UserData = userdata.AppendString(nil, userdata.TypeComment, clampComment(r.Comment))
		}
		c.lib.AddRule(rule)
		c.queued(fmt.Sprintf("adding rule %q to chain %s", r, op.Chain.Name))
	}
	return nil
}

func libSet(s *Set) (*nftables.Set, error) {
	if err := checkKey(s.Key); err != nil {
		return nil, err
	}
	types := make([]nftables.SetDatatype, len(s.Key))
	for i, f := range s.Key {
		types[i] = f.datatype()
	}
	set := &nftables.Set{
		Table:         table(),
		Name:          s.Name,
		KeyType:       types[0],
		Interval:      s.Interval,
		Concatenation: len(types) > 1 && s.Interval, // the kernel's name for concatenated ranges
		IsMap:         s.Verdicts,
		Comment:       clampComment(s.Comment),
	}
	if s.Verdicts {
		set.DataType = nftables.TypeVerdict
	}
	if len(types) > 1 {
		key, err := nftables.ConcatSetType(types...)
		if err != nil {
			return nil, err
		}
		set.KeyType = key
	}
	return set, nil
}

func (c *conn) setElements(op Op) error {
	set := &nftables.Set{Table: table(), Name: op.Set.Name, Interval: op.Set.Interval, IsMap: op.Set.Verdicts}
	for _, part := range chunked(plain(op.Leave)) {
		list, err := libElements(op.Set, part, false)
		if err == nil {
			err = c.lib.SetDeleteElements(set, list)
		}
		if err != nil {
			return fmt.Errorf("deleting elements from set %s: %w", op.Set.Name, err)
		}
		c.queued("deleting elements from set " + op.Set.Name)
	}
	for _, part := range chunked(op.Join) {
		list, err := libElements(op.Set, part, op.Set.Verdicts)
		if err == nil {
			err = c.lib.SetAddElements(set, list)
		}
		if err != nil {
			return fmt.Errorf("adding elements to set %s: %w", op.Set.Name, err)
		}
		c.queued("adding elements to set " + op.Set.Name)
	}
	return nil
}

// libElements encodes members. A range in a set of one field is a marker
// where it begins and one after its end; in a concatenation it is one element
// with two keys.
func libElements(s *Set, list []Member, verdicts bool) ([]nftables.SetElement, error) {
	size := 0
	for _, f := range s.Key {
		size += 4 * f.words()
	}
	elements := make([]nftables.SetElement, 0, len(list))
	for _, m := range list {
		if len(m.First) != size || s.Interval && len(m.end()) != size || !s.Interval && m.Last != "" || m.end() < m.First {
			return nil, fmt.Errorf("%s doesn't fit type %s", m.Element, s.typeString())
		}
		if (m.Verdict.Kind != NoVerdict) != verdicts {
			return nil, fmt.Errorf("element %s: its verdict %q doesn't suit a %s", m.Text(s.Key), m.Verdict, s.kind())
		}
		e := nftables.SetElement{Key: []byte(m.First)}
		if verdicts {
			v, err := m.Verdict.encode()
			if err != nil {
				return nil, err
			}
			e.VerdictData = v
		}
		switch {
		case !s.Interval:
			elements = append(elements, e)
		case len(s.Key) > 1:
			e.KeyEnd = []byte(m.end())
			elements = append(elements, e)
		default:
			elements = append(elements, e)
			if !isLast(m.end()) {
				elements = append(elements, nftables.SetElement{Key: []byte(step(m.end(), 1)), IntervalEnd: true})
			}
		}
	}
	return elements, nil
}
