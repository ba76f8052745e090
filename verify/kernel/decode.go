package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
)

// A dump is the table as the kernel sends it: the attributes of its messages. Messages of other
// tables are among them.
type dump struct {
	Table, Chains, Rules, Sets, Objects, Flowtables [][]byte
	// Elements are the answers for each set, by its name.
	Elements map[string][][]byte
}

// tableName is the name of the table that is read, of family inet.
const tableName = names.Table

// decodeDump reads a dump. Whatever it doesn't know is an error that names it: an expression, an
// attribute, a flag, a kind of object, chain or set.
func decodeDump(d *dump) (*Program, error) {
	p := &Program{chains: map[string]*chain{}, sets: map[string]*set{}}
	for _, part := range []struct {
		what   string
		bodies [][]byte
		decode func([]byte) error
	}{
		{"table", d.Table, decodeTable},
		{"chain", d.Chains, p.decodeChain},
		{"set", d.Sets, p.decodeSet},
		{"object", d.Objects, decodeOther(unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME)},
		{"flowtable", d.Flowtables, decodeOther(flowtableTable, flowtableName)},
	} {
		for _, body := range part.bodies {
			if err := part.decode(body); err != nil {
				return nil, fmt.Errorf("%s: %w", part.what, err)
			}
		}
	}
	for _, name := range p.setNames() {
		for _, body := range d.Elements[name] {
			if err := p.sets[name].decodeElements(body); err != nil {
				return nil, fmt.Errorf("set %s: %w", name, err)
			}
		}
		if err := p.sets[name].finish(); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	for _, body := range d.Rules {
		if err := p.decodeRule(body); err != nil {
			return nil, err
		}
	}
	return p, p.link()
}

// setNames lists the sets, sorted.
func (p *Program) setNames() []string {
	return slices.Sorted(maps.Keys(p.sets))
}

// Flags of a table: the last two say who may write it, and change no packet's way.
const tableOwner, tablePersist = 2, 4

// Attributes that x/sys doesn't name (linux/netfilter/nf_tables.h).
const (
	tableHandle, tablePad, tableUserdata, tableOwnerID = 4, 5, 6, 7
	chainFlags, chainID, chainUserdata                 = 10, 11, 12
	hookDevices                                        = 4
	flowtableTable, flowtableName                      = 1, 2
)

func decodeTable(body []byte) error {
	f, n, err := parse(body, kinds{unix.NFTA_TABLE_FLAGS}, unix.NFTA_TABLE_NAME,
		unix.NFTA_TABLE_USE,
		tableHandle, tablePad, tableUserdata, tableOwnerID)
	if err != nil {
		return err
	}
	switch flags := n[0]; {
	case text(f[unix.NFTA_TABLE_NAME]) != tableName:
		return fmt.Errorf("it is called %q", text(f[unix.NFTA_TABLE_NAME]))
	case flags&unix.NFT_TABLE_F_DORMANT != 0:
		return errors.New("it is dormant: its chains see no packet")
	case flags&^(tableOwner|tablePersist) != 0:
		return fmt.Errorf("flags %#x", flags)
	}
	return nil
}

// ours tells whether a message is about our table, without a look at the rest: others' may hold
// anything.
func ours(body []byte, tableAttr uint16) (bool, error) {
	name, found, err := find(body, tableAttr)
	if err == nil && !found {
		err = errors.New("of no table")
	}
	return err == nil && text(name) == tableName, err
}

func decodeOther(tableAttr, nameAttr uint16) func([]byte) error {
	return func(body []byte) error {
		if is, err := ours(body, tableAttr); err != nil || !is {
			return err
		}
		name, _, err := find(body, nameAttr)
		if err != nil {
			return err
		}
		return fmt.Errorf("%q: such a thing isn't known", text(name))
	}
}

func (p *Program) decodeChain(body []byte) error {
	if is, err := ours(body, unix.NFTA_CHAIN_TABLE); err != nil || !is {
		return err
	}
	f, err := fields(body, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_HANDLE, unix.NFTA_CHAIN_NAME,
		unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY,
		unix.NFTA_CHAIN_USE, unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_COUNTERS, unix.NFTA_CHAIN_PAD,
		chainFlags, chainID, chainUserdata)
	if err != nil {
		return err
	}
	c := &chain{name: text(f[unix.NFTA_CHAIN_NAME])}
	if p.chains[c.name] != nil || c.name == "" {
		return fmt.Errorf("%q is there twice, or has no name", c.name)
	}
	n, err := numbers(f, chainFlags, unix.NFTA_CHAIN_POLICY)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	hook, isBase := f[unix.NFTA_CHAIN_HOOK]
	if isBase {
		if c.base, err = decodeHook(hook); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		kind := text(f[unix.NFTA_CHAIN_TYPE])
		if c.base.nat = kind == "nat"; !c.base.nat && kind != "filter" {
			return fmt.Errorf("%s: type %q", c.name, kind)
		}
		if n[1] != nfAccept {
			return fmt.Errorf("%s: its policy isn't accept", c.name)
		}
	}
	const flagBase = 1
	if n[0]&^flagBase != 0 {
		return fmt.Errorf("%s: flags %#x", c.name, n[0])
	}
	p.chains[c.name] = c
	return nil
}

func decodeHook(body []byte) (*base, error) {
	f, n, err := parse(body, kinds{unix.NFTA_HOOK_HOOKNUM, unix.NFTA_HOOK_PRIORITY},
		unix.NFTA_HOOK_DEV, hookDevices)
	if err != nil {
		return nil, err
	}
	if f[unix.NFTA_HOOK_DEV] != nil || f[hookDevices] != nil {
		return nil, errors.New("it is a device's")
	}
	if Hook(n[0]) > Postrouting {
		return nil, fmt.Errorf("hook %d", n[0])
	}
	return &base{hook: Hook(n[0]), priority: int32(n[1])}, nil
}

func (p *Program) decodeRule(body []byte) error {
	if is, err := ours(body, unix.NFTA_RULE_TABLE); err != nil || !is {
		return err
	}
	f, err := fields(body, unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_HANDLE,
		unix.NFTA_RULE_EXPRESSIONS,
		unix.NFTA_RULE_POSITION, unix.NFTA_RULE_USERDATA, unix.NFTA_RULE_PAD, unix.NFTA_RULE_ID)
	if err != nil {
		return fmt.Errorf("rule: %w", err)
	}
	c := p.chains[text(f[unix.NFTA_RULE_CHAIN])]
	if c == nil {
		return fmt.Errorf("rule: of chain %q, which isn't there", text(f[unix.NFTA_RULE_CHAIN]))
	}
	r := &rule{number: len(c.rules) + 1, comment: comment(f[unix.NFTA_RULE_USERDATA])}
	c.rules = append(c.rules, r)
	list, err := attrs(f[unix.NFTA_RULE_EXPRESSIONS])
	if err != nil {
		return fmt.Errorf("chain %s rule %d: %w", c.name, r.number, err)
	}
	m := &machine{rule: r, sets: p.sets}
	for _, e := range list {
		if e.kind != unix.NFTA_LIST_ELEM {
			err = fmt.Errorf("attribute %d isn't known", e.kind)
		} else {
			err = m.expression(e.data)
		}
		if err != nil {
			return fmt.Errorf("chain %s rule %d: %w", c.name, r.number, err)
		}
	}
	return nil
}

// comment is what nft keeps of it in a rule's user data: type, length, value.
func comment(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		if data[0] == 0 {
			return string(bytes.TrimSuffix(data[2:2+int(data[1])], []byte{0}))
		}
		data = data[2+int(data[1]):]
	}
	return ""
}
