package wire

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// Add queues an operation for the next Flush. The sets are those of the ruleset that the operation
// leads to. The error of one that no message can say is a [RefusedError] about the object that can
// be left out.
func (c *Conn) Add(op nft.Op, sets map[string]*nft.Set) error {
	if err := c.queueOp(op, sets); err != nil {
		return unsendable(op, err)
	}
	return nil
}

func (c *Conn) queueOp(op nft.Op, sets map[string]*nft.Set) error {
	switch op.Kind {
	case nft.AddTable:
		return c.queue("adding table "+nft.TableName, unix.NFT_MSG_NEWTABLE, create,
			func(body *netlink.AttributeEncoder) error {
				body.String(unix.NFTA_TABLE_NAME, nft.TableName)
				body.Uint32(unix.NFTA_TABLE_FLAGS, c.TableFlags)
				return nil
			})
	case nft.AddChain:
		return c.addChain(op.Chain)
	case nft.AddRules:
		return c.addRules(op, sets)
	case nft.FlushChain:
		return c.queueNames("flushing chain "+op.Chain.Name, unix.NFT_MSG_DELRULE, op.Chain.Name)
	case nft.DeleteChain:
		return c.queueNames("deleting chain "+op.Chain.Name, unix.NFT_MSG_DELCHAIN, op.Chain.Name)
	case nft.AddSet:
		return c.addSet(op.Set)
	case nft.SetElements:
		return c.setElements(op)
	case nft.DeleteSet:
		return c.queueNames("deleting set "+op.Set.Name, unix.NFT_MSG_DELSET, op.Set.Name)
	}
	return nil
}

// DeleteTable queues the deletion of the table with all that is in it.
func (c *Conn) DeleteTable() error {
	return c.queue("deleting table "+nft.TableName, unix.NFT_MSG_DELTABLE, remove,
		func(body *netlink.AttributeEncoder) error {
			body.String(unix.NFTA_TABLE_NAME, nft.TableName)
			return nil
		})
}

// Attributes that mean the same in messages about chains, rules, sets, objects and flowtables.
const (
	tableAttr = unix.NFTA_CHAIN_TABLE
	setName   = unix.NFTA_SET_NAME
)

// queueNames queues the deletion of an object of our table. In messages about sets, rules,
// flowtables and objects the name is attribute 2; in those about chains it is 3.
func (c *Conn) queueNames(label string, kind uint16, name string) error {
	return c.queue(label, kind, remove, func(body *netlink.AttributeEncoder) error {
		body.String(tableAttr, nft.TableName)
		if kind == unix.NFT_MSG_DELCHAIN {
			body.String(unix.NFTA_CHAIN_NAME, name)
			return nil
		}
		body.String(setName, name)
		return nil
	})
}

// DeleteOther queues the deletion of what is none of ours.
func (c *Conn) DeleteOther(o Other) error {
	if o.flowtable {
		return c.queueNames("deleting "+o.String(), unix.NFT_MSG_DELFLOWTABLE, o.name)
	}
	return c.queue("deleting "+o.String(), unix.NFT_MSG_DELOBJ, remove,
		func(body *netlink.AttributeEncoder) error {
			body.String(unix.NFTA_OBJ_TABLE, nft.TableName)
			body.String(unix.NFTA_OBJ_NAME, o.name)
			body.Uint32(unix.NFTA_OBJ_TYPE, o.kind)
			return nil
		})
}

func (c *Conn) addChain(chain *nft.Chain) error {
	err := c.queue("adding chain "+chain.Name, unix.NFT_MSG_NEWCHAIN, create,
		func(body *netlink.AttributeEncoder) error {
			body.String(unix.NFTA_CHAIN_TABLE, nft.TableName)
			body.String(unix.NFTA_CHAIN_NAME, chain.Name)
			if chain.Base == nil {
				return nil
			}
			body.Nested(unix.NFTA_CHAIN_HOOK, func(hook *netlink.AttributeEncoder) error {
				hook.Uint32(unix.NFTA_HOOK_HOOKNUM, uint32(chain.Base.Hook))
				hook.Int32(unix.NFTA_HOOK_PRIORITY, int32(chain.Base.Priority))
				return nil
			})
			body.Uint32(unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept))
			body.String(unix.NFTA_CHAIN_TYPE, chain.Base.Type.String())
			return nil
		})
	if err == nil {
		c.about(nft.Object{Chain: chain.Name})
	}
	return err
}

func (c *Conn) addRules(op nft.Op, sets map[string]*nft.Set) error {
	for i, r := range op.Rules {
		exprs, err := encodeRule(r, sets)
		if err != nil {
			return fmt.Errorf("adding rule %d to chain %s: %w", i+1, op.Chain.Name, err)
		}
		label := fmt.Sprintf("adding rule %q to chain %s", r, op.Chain.Name)
		if err := c.queue(label, unix.NFT_MSG_NEWRULE, attach,
			func(body *netlink.AttributeEncoder) error {
				body.String(unix.NFTA_RULE_TABLE, nft.TableName)
				body.String(unix.NFTA_RULE_CHAIN, op.Chain.Name)
				body.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
					for _, x := range exprs {
						list.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, x)
					}
					return nil
				})
				if r.Comment != "" {
					body.Bytes(unix.NFTA_RULE_USERDATA,
						userdata.AppendString(nil, userdata.TypeComment,
							nft.ClampComment(r.Comment)))
				}
				return nil
			}); err != nil {
			return err
		}
		c.about(nft.Object{Chain: op.Chain.Name})
	}
	return nil
}

func (c *Conn) addSet(s *nft.Set) error {
	label := "adding set " + s.Name
	if err := checkShape(s); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	c.setID++ // has to be unique in a transaction
	err := c.queue(label, unix.NFT_MSG_NEWSET, create, func(body *netlink.AttributeEncoder) error {
		ranges := s.Interval && len(s.Key) > 1
		var flags uint32
		if s.Interval {
			flags |= unix.NFT_SET_INTERVAL
		}
		if ranges {
			flags |= nftables.NFT_SET_CONCAT // the kernel's name for concatenated ranges
		}
		if s.IsMap() {
			flags |= unix.NFT_SET_MAP
		}
		body.String(unix.NFTA_SET_TABLE, nft.TableName)
		body.String(unix.NFTA_SET_NAME, s.Name)
		body.Uint32(unix.NFTA_SET_FLAGS, flags)
		key, size := concatType(s.Key)
		body.Uint32(unix.NFTA_SET_KEY_TYPE, key)
		body.Uint32(unix.NFTA_SET_KEY_LEN, size)
		body.Uint32(unix.NFTA_SET_ID, c.setID)
		switch {
		case s.Verdicts:
			body.Uint32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		case s.IsMap():
			data, size := concatType([]nft.Field{s.Targets, nft.DstPort})
			body.Uint32(unix.NFTA_SET_DATA_TYPE, data)
			body.Uint32(unix.NFTA_SET_DATA_LEN, size)
		}
		if ranges {
			body.Nested(unix.NFTA_SET_DESC, describeKey(s))
		}
		if data := userData(s); len(data) > 0 {
			body.Bytes(unix.NFTA_SET_USERDATA, data)
		}
		return nil
	})
	if err == nil {
		c.about(nft.Object{Set: s.Name})
	}
	return err
}

// describeKey says where the fields of a concatenation of ranges begin.
func describeKey(s *nft.Set) func(*netlink.AttributeEncoder) error {
	return func(desc *netlink.AttributeEncoder) error {
		desc.Nested(nftables.NFTA_SET_DESC_CONCAT, func(list *netlink.AttributeEncoder) error {
			for _, f := range s.Key {
				list.Nested(unix.NFTA_LIST_ELEM, func(field *netlink.AttributeEncoder) error {
					field.Uint32(fieldLength, uint32(f.Size()))
					return nil
				})
			}
			return nil
		})
		return nil
	}
}

// fieldLength is NFTA_SET_FIELD_LEN.
const fieldLength = 1

// userData is what nft keeps with a set for its own use: the byte order of ranges, and the comment.
func userData(s *nft.Set) []byte {
	const bigEndian = 2
	var data []byte
	if s.Interval {
		data = userdata.AppendUint32(data, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, bigEndian)
	}
	if s.Comment != "" {
		data = userdata.AppendString(data, userdata.NFTNL_UDATA_SET_COMMENT,
			nft.ClampComment(s.Comment))
	}
	return data
}

// concatType is the number by which nft remembers the types of fields (see keyFields), and how many
// bytes they take.
func concatType(fields []nft.Field) (kind, size uint32) {
	for _, f := range fields {
		t := datatype(f)
		kind = kind<<nftables.SetConcatTypeBits | t.GetNFTMagic()
		size += uint32(4 * f.Words())
	}
	if len(fields) == 1 {
		size = uint32(fields[0].Size())
	}
	return kind, size
}

func checkShape(s *nft.Set) error {
	if err := checkKey(s.Key); err != nil {
		return err
	}
	if s.Targets != 0 && s.Targets != nft.DstAddr4 && s.Targets != nft.DstAddr6 {
		return fmt.Errorf("%s can't be translated to", s.Targets)
	}
	if s.Targets != 0 && (s.Verdicts || s.Guard) {
		return fmt.Errorf("a NAT map is neither a verdict map nor a guard")
	}
	return nil
}
