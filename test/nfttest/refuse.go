package nfttest

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft"
)

// Refusing is a Dialer whose connections have the kernel refuse whatever is to be made of the
// objects for which bad is true at that moment: their messages arrive spoilt. It is called from the
// goroutine that sends.
func Refusing(bad func(nft.Object) bool) nftsocket.Dialer {
	return func(netNS int) (nftsocket.Socket, error) {
		socket, err := nftsocket.Dial(netNS)
		if err != nil {
			return nil, err
		}
		return refusing{socket, bad}, nil
	}
}

type refusing struct {
	nftsocket.Socket
	bad func(nft.Object) bool
}

func (r refusing) SendMessages(messages []netlink.Message) ([]netlink.Message, error) {
	spoilt := slices.Clone(messages)
	for i, m := range spoilt {
		if m.Header.Type>>8 == unix.NFNL_SUBSYS_NFTABLES {
			spoilt[i].Data = r.spoil(uint16(m.Header.Type&0xff), m.Data)
		}
	}
	return r.Socket.SendMessages(spoilt)
}

const (
	nfgenHeader = 4  // struct nfgenmsg
	keyEnd      = 10 // NFTA_SET_ELEM_KEY_END
)

// spoil returns the data of a message, such that the kernel refuses it if it makes a bad object.
func (r refusing) spoil(kind uint16, data []byte) []byte {
	switch kind {
	case unix.NFT_MSG_NEWCHAIN:
		return r.spoilWhole(data, nft.Object{Chain: text(data, unix.NFTA_CHAIN_NAME)},
			unix.NFTA_CHAIN_HANDLE)
	case unix.NFT_MSG_NEWRULE:
		return r.spoilWhole(data, nft.Object{Chain: text(data, unix.NFTA_RULE_CHAIN)},
			unix.NFTA_RULE_HANDLE)
	case unix.NFT_MSG_NEWSET:
		return r.spoilWhole(data, nft.Object{Set: text(data, unix.NFTA_SET_NAME)},
			unix.NFTA_SET_FLAGS)
	case unix.NFT_MSG_NEWSETELEM:
		return r.spoilElements(data)
	}
	return data
}

// spoilWhole adds a number of one byte, of a kind that has more.
func (r refusing) spoilWhole(data []byte, o nft.Object, number uint16) []byte {
	if !r.bad(o) {
		return data
	}
	return attribute.Append(slices.Clone(data), number, []byte{0})
}

// spoilElements takes the values of bad elements' keys away. Nothing moves: the kernel says by an
// offset which element it refuses.
func (r refusing) spoilElements(data []byte) []byte {
	data = slices.Clone(data)
	set := text(data, unix.NFTA_SET_ELEM_LIST_SET)
	var elements [][]byte
	for _, e := range attribute.All(part(data[nfgenHeader:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		elements = append(elements, e)
	}
	for i, e := range elements {
		if endsRange(e) {
			continue
		}
		element := nft.Element{First: key(e, unix.NFTA_SET_ELEM_KEY), Last: key(e, keyEnd)}
		if i+1 < len(elements) && endsRange(elements[i+1]) {
			element.Last = nft.Step(key(elements[i+1], unix.NFTA_SET_ELEM_KEY), -1)
		}
		if r.bad(nft.Object{Set: set, Element: element}) {
			// where an attribute has its kind, and one that no kernel knows
			const kind, unknown = 2, 0x3fff
			binary.NativeEndian.PutUint16(part(e, unix.NFTA_SET_ELEM_KEY)[kind:], unknown)
		}
	}
	return data
}

// endsRange reports whether an element is the first one after a range.
func endsRange(element []byte) bool {
	flags := part(element, unix.NFTA_SET_ELEM_FLAGS)
	return len(flags) == 4 && binary.BigEndian.Uint32(flags)&unix.NFT_SET_ELEM_INTERVAL_END != 0
}

func key(element []byte, kind uint16) string {
	return string(part(part(element, kind), unix.NFTA_DATA_VALUE))
}

func text(message []byte, kind uint16) string {
	return strings.TrimRight(string(part(message[nfgenHeader:], kind)), "\x00")
}

// part is the value of the first attribute of a kind, in place.
func part(attributes []byte, kind uint16) []byte {
	for k, value := range attribute.All(attributes) {
		if k == kind {
			return value
		}
	}
	return nil
}
