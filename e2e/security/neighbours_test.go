package security

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// TestForgedNeighbours: no node believes a pod that claims to be thousands of neighbours.
func TestForgedNeighbours(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	w.start(web, evil, far)
	node4, node6 := w.addr("node1", 4), w.addr("node1", 6)
	for _, family := range families {
		w.reached("node1", probe.TCP, w.at(lab.Outside, family, 80))
	}
	before := w.neighbours("node1")

	gateway := w.gatewayMAC(evil)
	everybody, allNodes := net.HardwareAddr{255, 255, 255, 255, 255, 255},
		net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	hostEnd := netip.MustParseAddr("fe80::1")
	const each = 500
	var frames [][]byte
	for i := range each {
		mac, linkLocal := forgedMAC(i), forgedAddr("fe80::", i)
		frames = append(frames,
			arpRequest(everybody, mac, forgedAddr("192.168.64.0", i), node4),
			arpRequest(gateway, mac, forgedAddr("10.244.1.0", i),
				netip.MustParseAddr("169.254.1.1")),
			solicitation(gateway, mac, linkLocal, hostEnd),
			// the node would have to find who asks
			echoRequest(gateway, mac, forgedAddr("fe80::1:0", i), hostEnd),
			solicitation(gateway, mac, forgedAddr("fd00:192:168::7:0", i), node6),
			advertisement(allNodes, mac, linkLocal, netip.MustParseAddr("ff02::1")),
		)
	}
	w.must(w.Do(evil.place(), func() error { return sendFrames("eth0", frames) }))
	for _, family := range families { // behind the frames
		w.reached(evil.place(), probe.ICMP, w.at("node1", family, 0))
	}
	if after := w.neighbours("node1"); after > before {
		t.Errorf("%d frames of a pod have left %d entries in the node's neighbour table, where "+
			"there were %d", len(frames), after, before)
	}
	w.neighboursReachable()

	// The same on a link where neighbours are looked for: not many, as all namespaces of a machine
	// share a table's limit.
	const few = 50
	frames = nil
	var uplink net.HardwareAddr
	w.must(w.Do("node1", func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			uplink = link.HardwareAddr
		}
		return err
	}))
	for i := range few {
		frames = append(frames,
			arpRequest(everybody, forgedMAC(i), forgedAddr("192.168.64.0", i), node4),
			solicitation(uplink, forgedMAC(i), forgedAddr("fd00:192:168::7:0", i), node6))
	}
	w.must(w.Do(lab.Outside, func() error { return sendFrames("eth0", frames) }))
	w.eventually("the control's frames to leave entries", func() bool {
		return w.neighbours("node1") >= before+len(frames)
	})
}

// neighboursReachable demands that the node finds neighbours that it hasn't talked to yet, and
// pods.
func (w *world) neighboursReachable() {
	w.t.Helper()
	for _, addr := range w.OutsideAddrs() {
		w.reached("node1", probe.TCP, netip.AddrPortFrom(addr, 80))
	}
	for _, family := range families {
		w.reached("node1", probe.ICMP, w.at(web.place(), family, 0))
		w.reached(evil.place(), probe.ICMP, w.at(web.place(), family, 0))
		w.reached(web.place(), probe.ICMP, w.at(far.place(), family, 0))
		w.reached(far.place(), probe.ICMP, w.at(web.place(), family, 0))
	}
}

// neighbours is how many entries a node's neighbour tables have, of both families and in any state.
func (w *world) neighbours(node string) (count int) {
	w.t.Helper()
	w.must(w.Do(node, func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			all, err := listNeighbours(family)
			if err != nil {
				return err
			}
			count += len(all)
		}
		return nil
	}))
	return count
}

// listNeighbours lists the entries of the current namespace, again if the listing is interrupted by
// a change.
func listNeighbours(family int) ([]netlink.Neigh, error) {
	for {
		all, err := netlink.NeighList(0, family)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

// gatewayMAC is where a pod sends what isn't for itself.
func (w *world) gatewayMAC(p pod) (mac net.HardwareAddr) {
	w.t.Helper()
	w.must(w.Do(p.place(), func() error {
		all, err := listNeighbours(netlink.FAMILY_V4)
		if err != nil || len(all) == 0 {
			return errors.Join(err, errors.New("the pod has no gateway"))
		}
		mac = all[0].HardwareAddr
		return nil
	}))
	return mac
}

func forgedMAC(i int) net.HardwareAddr {
	return net.HardwareAddr{2, 0xbd, 0, 0, byte(i >> 8), byte(i)}
}

// forgedAddr is address number i behind the base's last two bytes.
func forgedAddr(base string, i int) netip.Addr {
	bytes := netip.MustParseAddr(base).AsSlice()
	last := bytes[len(bytes)-2:]
	binary.BigEndian.PutUint16(last, binary.BigEndian.Uint16(last)+uint16(i)+2)
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// sendFrames sends Ethernet frames by a link of the current namespace.
func sendFrames(link string, frames [][]byte) error {
	device, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for _, frame := range frames {
		err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index})
		if err != nil {
			break
		}
	}
	return errors.Join(err, unix.Close(fd))
}
