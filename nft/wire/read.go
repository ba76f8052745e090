package wire

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// Installed is what the kernel has.
type Installed struct {
	Exists bool
	Asleep bool         // the table is dormant: its base chains see no packet
	Rules  *nft.Ruleset // chains and sets
	Others []Other      // what we never make
}

// An Other is a stateful object or a flowtable: what our table never has by us.
type Other struct {
	name      string
	kind      uint32
	flowtable bool
}

func (o Other) String() string {
	if o.flowtable {
		return "flowtable " + o.name
	}
	return fmt.Sprintf("object %s (type %d)", o.name, o.kind)
}

// A read that others' changes interrupt is tried again, up to maxReads times. Only the first
// calmReads insist on a ruleset that doesn't change anywhere from the first dump to the last: where
// others write all the time, that never comes, and ours is the only writer of our table.
const (
	calmReads = 5
	maxReads  = 20
)

// Read returns what the kernel has in our table. Where a rule or the key of a set is what like
// wants, the result uses like's words, so that equal things compare equal; everything else is
// foreign.
func (c *Conn) Read(like *nft.Ruleset) (*Installed, error) {
	canon, err := canonicalRules(like)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		c.impatient = try > calmReads
		got, err := c.readOnce(like, canon)
		if err == nil {
			return got, nil
		}
		if !errors.Is(err, errInterrupted) && !errors.Is(err, unix.EINTR) &&
			!errors.Is(err, unix.ENOENT) || try == maxReads {
			return nil, fmt.Errorf("reading table %s: %w", nft.TableName, err)
		}
	}
}

func (c *Conn) readOnce(like *nft.Ruleset, canon map[string][]string) (*Installed, error) {
	before, err := c.generation()
	if err != nil {
		return nil, err
	}
	got := &Installed{Rules: nft.NewRuleset()}
	exists, flags, _, err := c.ReadTable()
	if err != nil {
		return nil, fmt.Errorf("reading the table: %w", err)
	}
	if !exists {
		return got, nil
	}
	got.Exists, got.Asleep = true, flags&unix.NFT_TABLE_F_DORMANT != 0
	for _, part := range []func() error{
		func() error { return c.readChains(got) },
		func() error { return c.readRules(got, like, canon) },
		func() error { return c.readSets(got, like) },
		func() error { return c.readOthers(got) },
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	after, err := c.generation()
	if err != nil {
		return nil, err
	}
	if !c.impatient && after != before {
		return nil, errInterrupted
	}
	return got, nil
}

// readChains lists the chains of all inet tables, since the kernel can't filter those, and keeps
// ours.
func (c *Conn) readChains(got *Installed) error {
	bodies, err := c.dump(unix.NFT_MSG_GETCHAIN)
	if err != nil {
		return fmt.Errorf("reading chains: %w", err)
	}
	for _, body := range bodies {
		var table, kind string
		chain := &nft.Chain{}
		policy := uint32(nftables.ChainPolicyAccept)
		err := decode(body, func(ad *netlink.AttributeDecoder) error {
			switch ad.Type() {
			case unix.NFTA_CHAIN_TABLE:
				table = ad.String()
			case unix.NFTA_CHAIN_NAME:
				chain.Name = ad.String()
			case unix.NFTA_CHAIN_TYPE:
				kind = ad.String()
			case unix.NFTA_CHAIN_POLICY:
				policy = ad.Uint32()
			case unix.NFTA_CHAIN_HOOK:
				base, err := readHook(ad.Bytes())
				chain.Base = base
				return err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading chain %s: %w", chain.Name, err)
		}
		if table != nft.TableName {
			continue
		}
		if chain.Base != nil {
			switch kind {
			case nft.FilterChain.String():
			case nft.NATChain.String():
				chain.Base.Type = nft.NATChain
			default:
				chain.Base.Foreign += "type " + kind + "; "
			}
			if policy != uint32(nftables.ChainPolicyAccept) {
				chain.Base.Foreign += "policy drop; "
			}
		}
		got.Rules.Chains[chain.Name] = chain
	}
	return nil
}

// hookDevices is NFTA_HOOK_DEVS.
const hookDevices = 4

func readHook(body []byte) (*nft.Base, error) {
	base := &nft.Base{}
	err := decode(body, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			base.Hook = nft.Hook(ad.Uint32())
		case unix.NFTA_HOOK_PRIORITY:
			base.Priority = int(ad.Int32())
		case unix.NFTA_HOOK_DEV, hookDevices:
			base.Foreign += "device; "
		}
		return nil
	})
	return base, err
}

func (c *Conn) readRules(got *Installed, like *nft.Ruleset, canon map[string][]string) error {
	bodies, err := c.dump(unix.NFT_MSG_GETRULE, nameAttr(unix.NFTA_RULE_TABLE, nft.TableName))
	if err != nil {
		return fmt.Errorf("reading rules: %w", err)
	}
	for _, body := range bodies {
		r, err := readRule(body)
		if err != nil {
			return err
		}
		if r.table != nft.TableName {
			continue
		}
		chain := got.Rules.Chains[r.chain]
		if chain == nil {
			return errInterrupted
		}
		i, wanted := len(chain.Rules), canon[r.chain]
		if i < len(wanted) && wanted[i] == r.text() {
			chain.Rules = append(chain.Rules, like.Chains[r.chain].Rules[i])
			continue
		}
		chain.Rules = append(chain.Rules, r.foreign())
	}
	return nil
}

// readSets reads the named sets; the anonymous ones of foreign rules come and go with those.
func (c *Conn) readSets(got *Installed, like *nft.Ruleset) error {
	bodies, err := c.dump(unix.NFT_MSG_GETSET, nameAttr(unix.NFTA_SET_TABLE, nft.TableName))
	if err != nil {
		return fmt.Errorf("reading sets: %w", err)
	}
	for _, body := range bodies {
		set, anonymous, err := readSet(body)
		if err != nil {
			return err
		}
		if anonymous {
			continue
		}
		want := like.Sets[set.Name]
		ours := want != nil && want.SameShape(set)
		if ours {
			set.Key, set.Guard, set.Skip = want.Key, want.Guard, want.Skip
		}
		if !slices.Contains(set.Key, nft.ForeignField) {
			if set.Elements, err = c.ReadElements(set); err != nil {
				return err
			}
		}
		if ours { // and will be changed element by element
			if err := checkElements(set); err != nil {
				return fmt.Errorf("reading set %s: %w", set.Name, err)
			}
		}
		got.Rules.Sets[set.Name] = set
	}
	return nil
}

// readSet decodes a set's definition. What our sets never have makes the key foreign.
func readSet(body []byte) (set *nft.Set, anonymous bool, err error) {
	const concatFlag = nftables.NFT_SET_CONCAT
	set = &nft.Set{Elements: map[nft.Element]nft.Verdict{}}
	var flags, key, data uint32
	strange := false
	err = decode(body, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.NFTA_SET_NAME:
			set.Name = ad.String()
		case unix.NFTA_SET_FLAGS:
			flags = ad.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			key = ad.Uint32()
		case unix.NFTA_SET_DATA_TYPE:
			data = ad.Uint32()
		case unix.NFTA_SET_USERDATA:
			set.Comment = userComment(ad.Bytes(), setCommentType)
		case unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_OBJ_TYPE:
			strange = true
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("reading set %s: %w", set.Name, err)
	}
	set.Interval = flags&unix.NFT_SET_INTERVAL != 0
	set.Key = keyFields(key)
	if flags&unix.NFT_SET_MAP != 0 {
		set.Verdicts = data == unix.NFT_DATA_VERDICT
		set.Targets = targetsField(data)
		strange = strange || !set.IsMap()
	}
	known := uint32(unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | concatFlag)
	if strange || flags&^known != 0 {
		set.Key = []nft.Field{nft.ForeignField}
	}
	return set, flags&unix.NFT_SET_ANONYMOUS != 0, nil
}

// keyFields reads the number by which nft remembers the types of a key: 6 bits each, the last one
// lowest.
func keyFields(magic uint32) []nft.Field {
	var fields []nft.Field
	for ; magic != 0; magic >>= nftables.SetConcatTypeBits {
		field := nft.ForeignField
		for _, f := range []nft.Field{nft.SrcAddr4, nft.SrcAddr6, nft.InIface, nft.L4Proto,
			nft.DstPort} {
			t := datatype(f)
			if t.GetNFTMagic() == magic&nftables.SetConcatTypeMask {
				field = f
			}
		}
		fields = append(fields, field)
	}
	slices.Reverse(fields)
	if len(fields) == 0 {
		return []nft.Field{nft.ForeignField}
	}
	return fields
}

// targetsField is the family of a NAT map, by the type of its data: an address and a port. 0 for
// other data.
func targetsField(data uint32) nft.Field {
	for _, targets := range []nft.Field{nft.DstAddr4, nft.DstAddr6} {
		if kind, _ := concatType([]nft.Field{targets, nft.DstPort}); kind == data {
			return targets
		}
	}
	return 0
}

// readOthers finds what nobody of us made.
func (c *Conn) readOthers(got *Installed) error {
	objects, err := c.dump(unix.NFT_MSG_GETOBJ, nameAttr(unix.NFTA_OBJ_TABLE, nft.TableName))
	if err != nil {
		return fmt.Errorf("reading objects: %w", err)
	}
	for _, body := range objects {
		var o Other
		var table string
		if err := decode(body, func(ad *netlink.AttributeDecoder) error {
			switch ad.Type() {
			case unix.NFTA_OBJ_TABLE:
				table = ad.String()
			case unix.NFTA_OBJ_NAME:
				o.name = ad.String()
			case unix.NFTA_OBJ_TYPE:
				o.kind = ad.Uint32()
			}
			return nil
		}); err != nil {
			return err
		}
		if table == nft.TableName {
			got.Others = append(got.Others, o)
		}
	}
	return c.readFlowtables(got)
}

// Attributes of a flowtable (linux/netfilter/nf_tables.h).
const (
	flowtableTable = 1
	flowtableName  = 2
)

func (c *Conn) readFlowtables(got *Installed) error {
	bodies, err := c.dump(unix.NFT_MSG_GETFLOWTABLE, nameAttr(flowtableTable, nft.TableName))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading flowtables: %w", err)
	}
	for _, body := range bodies {
		o := Other{flowtable: true}
		var table string
		if err := decode(body, func(ad *netlink.AttributeDecoder) error {
			switch ad.Type() {
			case flowtableTable:
				table = ad.String()
			case flowtableName:
				o.name = ad.String()
			}
			return nil
		}); err != nil {
			return err
		}
		if table == nft.TableName {
			got.Others = append(got.Others, o)
		}
	}
	return nil
}

// Types of what nft keeps in the user data of rules and sets.
const (
	ruleCommentType = 0
	setCommentType  = 7
)

// userComment finds a comment in user data: type, length, value, repeated.
func userComment(data []byte, kind byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		if data[0] == kind {
			return strings.TrimSuffix(string(data[2:2+int(data[1])]), "\x00")
		}
		data = data[2+int(data[1]):]
	}
	return ""
}
