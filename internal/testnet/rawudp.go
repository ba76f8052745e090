package testnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// SendUDP sends one UDP datagram of a few bytes by SendRaw. The source need not be the host's.
func (h *Host) SendUDP(src, dst netip.AddrPort) error {
	if src.Addr().Is4() != dst.Addr().Is4() {
		return fmt.Errorf("no datagram from %s to %s", src, dst)
	}
	payload := []byte("datagram")
	datagram := binary.BigEndian.AppendUint16(nil, src.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, dst.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload)))
	datagram = append(append(datagram, 0, 0), payload...)

	sum := sum16(src.Addr().AsSlice()) + sum16(dst.Addr().AsSlice()) + unix.IPPROTO_UDP + uint32(len(datagram)) + sum16(datagram)
	binary.BigEndian.PutUint16(datagram[6:], foldChecksum(sum))
	return h.SendRaw(append(ipHeader(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, len(datagram)), datagram...))
}
