package testnet

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

// count adds a rule that counts the forwarded packets that match, and returns a check that some came by.
func count(t *testing.T, n *Node, name, match string) func() {
	t.Helper()
	n.Nft(forwardChain + "add counter inet test " + name + "; add rule inet test forward " + match + " counter name " + name)
	return func() {
		t.Helper()
		eventually(t, match, func() bool { return !strings.Contains(n.Nft("list counter inet test "+name), "packets 0 ") })
	}
}

func TestSendTCP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, family := range []string{"ip", "ip6"} {
		src, dst := at(addrsA[i], 4242), at(addrsB[i], openPort)
		// The server's kernel answers a SYN only if the checksum is good.
		answered := count(t, w.node, "answered"+family, family+" saddr "+addrsB[i].String()+" tcp dport 4242 tcp flags & (syn|ack) == syn|ack")
		if err := w.a.SendTCP(src, dst, SYN, 1000, 0); err != nil {
			t.Fatal(err)
		}
		answered()

		reset := count(t, w.node, "reset"+family, family+" saddr "+addrsB[i].String()+" tcp dport 4243 tcp flags rst")
		if err := w.a.SendTCP(at(addrsA[i], 4243), dst, ACK, 1, 1); err != nil {
			t.Fatal(err)
		}
		reset()

		spoofed := netip.AddrPortFrom(addrsOutside[i], 4244)
		seen := count(t, w.node, "spoofed"+family, family+" saddr "+addrsOutside[i].String()+" tcp sport 4244 tcp flags & (fin|psh|urg) == fin|psh|urg")
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
		seen := count(t, w.node, "esp"+family, family+" saddr "+addrsA[i].String()+" meta l4proto esp")
		if err := w.a.SendRaw(append(ipHeader(addrsA[i], addrsB[i], 50, 8), make([]byte, 8)...)); err != nil {
			t.Fatal(err)
		}
		seen()

		// Conntrack's verdict on SCTP checksums shows that those of Connect are good.
		bad := sctpPacket{source: 4242, dest: openPort, chunk: sctpInit, initTag: 1}.marshal()
		binary.BigEndian.PutUint16(bad, 4243)
		invalid := count(t, w.node, "invalid"+family, "meta l4proto sctp ct state invalid")
		w.a.MustReach(t, SCTP, at(addrsB[i], openPort))
		if got := w.node.Nft("list counter inet test invalid" + family); !strings.Contains(got, "packets 0 ") {
			t.Errorf("conntrack finds an INIT or INIT ACK invalid: %s", got)
		}
		if err := w.a.SendRaw(append(ipHeader(addrsA[i], addrsB[i], 132, len(bad)), bad...)); err != nil {
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
