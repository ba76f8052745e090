package nflog

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
)

// Record is one logged packet.
type Record struct {
	Packet
	// Prefix is the rule's log prefix, in nft's words.
	Prefix string
	// In and Out are the indices of the interfaces that the packet came from and is about to leave
	// by, in the reader's network namespace; 0: none.
	In, Out int
	// Lost is how many records before this one didn't arrive.
	Lost uint32
}

// Attributes of a logged packet (enum nfulnl_attr_type).
const (
	attrInterfaceIn  = 4
	attrInterfaceOut = 5
	attrPayload      = 9
	attrPrefix       = 10
	attrSequence     = 12
)

// headerSize is that of struct nfgenmsg, which begins every message.
const headerSize = 4

// parseRecord reads a message; the sequence number is the kernel's count of records before it.
func parseRecord(message []byte) (r Record, sequence uint32, err error) {
	if len(message) < headerSize {
		return r, 0, fmt.Errorf("a record of %d bytes", len(message))
	}
	ad, err := netlink.NewAttributeDecoder(message[headerSize:])
	if err != nil {
		return r, 0, fmt.Errorf("reading a record: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	var payload []byte
	for ad.Next() {
		switch ad.Type() {
		case attrInterfaceIn:
			r.In = int(ad.Uint32())
		case attrInterfaceOut:
			r.Out = int(ad.Uint32())
		case attrPayload:
			payload = ad.Bytes()
		case attrPrefix:
			r.Prefix = ad.String()
		case attrSequence:
			sequence = ad.Uint32()
		}
	}
	if err := ad.Err(); err != nil {
		return r, 0, fmt.Errorf("reading a record: %w", err)
	}
	if r.Packet, err = parsePacket(payload); err != nil {
		return r, sequence, fmt.Errorf("reading a logged packet of %d bytes: %w", len(payload), err)
	}
	return r, sequence, nil
}
