package testnet

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

// count adds a rule that counts the forwarded packets that match, and returns a check that some
// came by.
func count(t *testing.T, n *Node, name, match string) func() {
	t.Helper()
	n.Nft(forwardChain + "add counter inet test " + name + "; add rule inet test forward " + match +
		" counter name " + name)
	return func() {
		t.Helper()
		eventually(t, match, func() bool {
			return !strings.Contains(n.Nft("list counter inet test "+name), "packets 0 ")
		})
	}
}

func TestSendTCP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, family := range []string{"ip", "ip6"} {
		src, dst := at(addrsA[i], 4242), at(addrsB[i], openPort)
		// The server's kernel answers a SYN only if the checksum is good.
		answered := count(t, w.node, "answered"+family,
			family+" saddr "+addrsB[i].String()+" tcp dport 4242 tcp flags & (syn|ack) == syn|ack")
		if err := w.a.SendTCP(src, dst, SYN, 1000, 0); err != nil {
			t.Fatal(err)
		}
		answered()

		reset := count(t, w.node, "reset"+family,
			family+" saddr "+addrsB[i].String()+" tcp dport 4243 tcp flags rst")
		if err := w.a.SendTCP(at(addrsA[i], 4243), dst, ACK, 1, 1); err != nil {
			t.Fatal(err)
		}
		reset()

		spoofed := netip.AddrPortFrom(addrsOutside[i], 4244)
		seen := count(t, w.node, "spoofed"+family, family+" saddr "+addrsOutside[i].String()+
			" tcp sport 4244 tcp flags & (fin|psh|urg) == fin|psh|urg")
		if err := w.a.SendTCP(spoofed, dst, FIN|PSH|URG, 1, 1); err != nil {
			t.Fatal(err)
		}
		seen()
	}
	if err := w.a.SendTCP(at(addrsA[0], 1), at(addrsB[1], 1), SYN, 0, 0); err == nil {
		t.Error("a segment between two families was sent")
	}
}

func TestSendRaw(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, family := range []string{"ip", "ip6"} {
		// A protocol no socket speaks.
		seen := count(t, w.node, "esp"+family,
			family+" saddr "+addrsA[i].String()+" meta l4proto esp")
		if err := w.a.SendRaw(rawPacket(addrsA[i], addrsB[i], 50, make([]byte, 8))); err != nil {
			t.Fatal(err)
		}
		seen()

		// Conntrack's verdict on SCTP checksums shows that those of Connect are good.
		invalid := count(t, w.node, "invalid"+family, "meta l4proto sctp ct state invalid")
		w.a.MustReach(t, SCTP, at(addrsB[i], openPort))
		got := w.node.Nft("list counter inet test invalid" + family)
		if !strings.Contains(got, "packets 0 ") {
			t.Errorf("conntrack finds an INIT or INIT ACK invalid: %s", got)
		}
		if err := w.a.SendRaw(sctpWithoutChecksum(addrsA[i], addrsB[i])); err != nil {
			t.Fatal(err)
		}
		invalid()
	}
	for _, junk := range [][]byte{nil, {0x45}, make([]byte, 60)} {
		if err := w.a.SendRaw(junk); err == nil {
			t.Errorf("a packet of %d zeros was sent", len(junk))
		}
	}
}

// sctpWithoutChecksum is an INIT (RFC 9260) whose checksum is zero.
func sctpWithoutChecksum(src, dst netip.Addr) []byte {
	packet := make([]byte, 12+20)
	binary.BigEndian.PutUint16(packet, 4243)
	binary.BigEndian.PutUint16(packet[2:], openPort)
	packet[12], packet[15] = 1, 20               // chunk type and length
	packet[19], packet[25], packet[27] = 1, 1, 1 // tag, streams
	return rawPacket(src, dst, 132, packet)
}

// rawPacket is what SendRaw takes.
func rawPacket(src, dst netip.Addr, protocol byte, payload []byte) []byte {
	var header [40]byte
	if src.Is4() {
		header[0], header[8], header[9] = 4<<4|5, 64, protocol
		binary.BigEndian.PutUint16(header[2:], uint16(20+len(payload)))
		copy(header[12:], src.AsSlice())
		copy(header[16:], dst.AsSlice())
		return append(header[:20:20], payload...)
	}
	header[0], header[6], header[7] = 6<<4, protocol, 64
	binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	copy(header[8:], src.AsSlice())
	copy(header[24:], dst.AsSlice())
	return append(header[:], payload...)
}
