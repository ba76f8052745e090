package wire

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/nft"
)

// A kernelElement is an element as the kernel lists it.
type kernelElement struct {
	key, keyEnd string
	endMarker   bool // the key is the first one after a range
	verdict     nft.Verdict
}

// ReadElements reads the members of a set.
func (c *Conn) ReadElements(set *nft.Set) (map[nft.Element]nft.Verdict, error) {
	bodies, err := c.dumpTwice(unix.NFT_MSG_GETSETELEM,
		nameAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nft.TableName),
		nameAttr(unix.NFTA_SET_ELEM_LIST_SET, set.Name))
	if err != nil {
		return nil, fmt.Errorf("reading elements of set %s: %w", set.Name, err)
	}
	var list []kernelElement
	for _, body := range bodies {
		err := decode(body, func(ad *netlink.AttributeDecoder) error {
			if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return nil
			}
			return decode(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
				e, err := readElement(ad.Bytes())
				list = append(list, e)
				return err
			})
		})
		if err != nil {
			return nil, fmt.Errorf("reading elements of set %s: %w", set.Name, err)
		}
	}
	if set.Interval && len(set.Key) == 1 {
		return pairRanges(list), nil
	}
	elements := make(map[nft.Element]nft.Verdict, len(list))
	for _, k := range list {
		e := nft.Element{First: k.key, Last: k.keyEnd}
		if set.Interval && e.Last == "" {
			e.Last = e.First
		}
		elements[e] = k.verdict
	}
	return elements, nil
}

// checkElements refuses elements that can't be in a set with such a key: what the kernel can't have
// said isn't guessed at.
func checkElements(s *nft.Set) error {
	size := 0
	for _, f := range s.Key {
		size += 4 * f.Words()
	}
	for e := range s.Elements {
		fits := len(e.First) == size && len(e.End()) == size && e.First <= e.End()
		if !fits || s.Interval == (e.Last == "") {
			return fmt.Errorf("element %s doesn't fit type %s", e, s.TypeString())
		}
	}
	return nil
}

func readElement(body []byte) (kernelElement, error) {
	var e kernelElement
	err := decode(body, func(ad *netlink.AttributeDecoder) error {
		var err error
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			e.key, err = readValue(ad.Bytes())
		case nftables.NFTA_SET_ELEM_KEY_END:
			e.keyEnd, err = readValue(ad.Bytes())
		case unix.NFTA_SET_ELEM_FLAGS:
			e.endMarker = ad.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_DATA:
			e.verdict, err = readVerdict(ad.Bytes())
		}
		return err
	})
	return e, err
}

func readValue(body []byte) (string, error) {
	var value string
	err := decode(body, func(ad *netlink.AttributeDecoder) error {
		if ad.Type() == unix.NFTA_DATA_VALUE {
			value = string(ad.Bytes())
		}
		return nil
	})
	return value, err
}

// readVerdict reads an element's data: a verdict, or the target of a NAT map.
func readVerdict(body []byte) (nft.Verdict, error) {
	var v nft.Verdict
	err := decode(body, func(ad *netlink.AttributeDecoder) error {
		if ad.Type() == unix.NFTA_DATA_VALUE {
			v = readTarget(ad.Bytes())
			return nil
		}
		return decode(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
			switch ad.Type() {
			case unix.NFTA_VERDICT_CODE:
				v.Kind = verdictKind(expr.VerdictKind(ad.Int32()))
			case unix.NFTA_VERDICT_CHAIN:
				v.Chain = ad.String()
			}
			return nil
		})
	})
	return v, err
}

func verdictKind(code expr.VerdictKind) nft.VerdictKind {
	switch code {
	case expr.VerdictAccept:
		return nft.Accept
	case expr.VerdictDrop:
		return nft.Drop
	case expr.VerdictJump:
		return nft.Jump
	case expr.VerdictReturn:
		return nft.Return
	default:
		return nft.ForeignVerdict
	}
}

// pairRanges makes ranges of the markers by which the kernel keeps an interval set of one field:
// one where a range begins, and one after its end, unless it ends with the last address. nft adds
// an end marker of its own at the first address, which ends nothing.
func pairRanges(list []kernelElement) map[nft.Element]nft.Verdict {
	slices.SortFunc(list, func(a, b kernelElement) int {
		if c := cmp.Compare(a.key, b.key); c != 0 || a.endMarker == b.endMarker {
			return c
		}
		if a.endMarker { // one range may end where the next begins
			return -1
		}
		return 1
	})
	elements := make(map[nft.Element]nft.Verdict, len(list)/2)
	var open *kernelElement
	for i, k := range list {
		if open != nil {
			elements[nft.Element{First: open.key, Last: nft.Step(k.key, -1)}] = open.verdict
			open = nil
		}
		if !k.endMarker {
			open = &list[i]
		}
	}
	if open != nil {
		last := make([]byte, len(open.key))
		for i := range last {
			last[i] = 0xff
		}
		elements[nft.Element{First: open.key, Last: string(last)}] = open.verdict
	}
	return elements
}
