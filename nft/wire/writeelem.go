package wire

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

func (c *Conn) setElements(op nft.Op) error {
	for _, part := range nft.Chunked(nft.Plain(op.Leave)) {
		label := "deleting elements from set " + op.Set.Name
		if err := c.queueElements(label, unix.NFT_MSG_DELSETELEM, remove, op.Set, part,
			false); err != nil {
			return err
		}
	}
	for _, part := range nft.Chunked(op.Join) {
		label := "adding elements to set " + op.Set.Name
		if err := c.queueElements(label, unix.NFT_MSG_NEWSETELEM, create, op.Set, part,
			op.Set.IsMap()); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) queueElements(label string, kind uint16, flags netlink.HeaderFlags, s *nft.Set,
	part []nft.Member, data bool) error {
	elements, err := newElements(s, part, data)
	if err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	err = c.queue(label, kind, flags, func(body *netlink.AttributeEncoder) error {
		body.String(unix.NFTA_SET_ELEM_LIST_TABLE, nft.TableName)
		body.String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		body.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
			for _, e := range elements {
				list.Nested(unix.NFTA_LIST_ELEM, e.encode)
			}
			return nil
		})
		return nil
	})
	if err == nil && kind == unix.NFT_MSG_NEWSETELEM {
		c.about(nft.Object{Set: s.Name}, elements...)
	}
	return err
}

// A newElement is an element as the kernel takes it.
type newElement struct {
	nft.Member
	targets nft.Field // of the NAT map

	end       string // the last key of a range in a concatenation
	endMarker bool   // the key is the first one after a range
	bare      bool   // without data
}

func (e newElement) encode(body *netlink.AttributeEncoder) error {
	if e.endMarker {
		body.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	body.Nested(unix.NFTA_SET_ELEM_KEY, value([]byte(e.First)))
	if e.end != "" {
		body.Nested(nftables.NFTA_SET_ELEM_KEY_END, value([]byte(e.end)))
	}
	if !e.bare && !e.endMarker {
		body.Nested(unix.NFTA_SET_ELEM_DATA, e.encodeData)
	}
	return nil
}

func value(b []byte) func(*netlink.AttributeEncoder) error {
	return func(body *netlink.AttributeEncoder) error {
		body.Bytes(unix.NFTA_DATA_VALUE, b)
		return nil
	}
}

func (e newElement) encodeData(body *netlink.AttributeEncoder) error {
	if e.targets != 0 {
		data, err := targetData(e.targets, e.Verdict)
		if err != nil {
			return err
		}
		return value(data)(body)
	}
	v, err := verdict(e.Verdict)
	if err != nil {
		return err
	}
	body.Nested(unix.NFTA_DATA_VERDICT, func(body *netlink.AttributeEncoder) error {
		body.Int32(unix.NFTA_VERDICT_CODE, int32(v.Kind))
		if v.Chain != "" {
			body.String(unix.NFTA_VERDICT_CHAIN, v.Chain)
		}
		return nil
	})
	return nil
}

// newElements encodes members. A range in a set of one field is a marker where it begins and one
// after its end; in a concatenation it is one element with two keys.
func newElements(s *nft.Set, list []nft.Member, data bool) ([]newElement, error) {
	size := 0
	for _, f := range s.Key {
		size += 4 * f.Words()
	}
	elements := make([]newElement, 0, len(list))
	for _, m := range list {
		if len(m.First) != size || s.Interval && len(m.End()) != size ||
			!s.Interval && m.Last != "" || m.End() < m.First {
			return nil, fmt.Errorf("%s doesn't fit type %s", m.Element, s.TypeString())
		}
		if (m.Verdict.Kind != nft.NoVerdict) != data {
			return nil, fmt.Errorf("element %s: its verdict %q doesn't suit a %s", m.Text(s.Key),
				m.Verdict, s.Kind())
		}
		e := newElement{Member: m, targets: s.Targets, bare: !data}
		switch {
		case !s.Interval:
			elements = append(elements, e)
		case len(s.Key) > 1:
			e.end = m.End()
			elements = append(elements, e)
		default:
			elements = append(elements, e)
			if !nft.IsLast(m.End()) {
				after := nft.Element{First: nft.Step(m.End(), 1)}
				elements = append(elements,
					newElement{Member: nft.Member{Element: after}, endMarker: true})
			}
		}
	}
	return elements, nil
}
