package podlink

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/testnet"
)

// The agent's healing may furnish a host end before a slow ADD does. What leads elsewhere is another pod's.
func TestFurnishHostEndTwice(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	err := node.Do(func() error {
		host, err := openSpace()
		if err != nil {
			return err
		}
		defer host.Close()
		mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
		w := Wiring{PodMAC: mac, Addrs: []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1")}}
		var ends []netlink.Link
		for _, name := range []string{"slupfirst", "slupsecond"} {
			link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-p"}
			if err := errors.Join(host.LinkAdd(link), host.LinkSetUp(link)); err != nil {
				return err
			}
			ends = append(ends, link)
		}
		for try := range 2 {
			if err := host.furnishHostEnd(ends[0], w); err != nil {
				t.Errorf("time %d: %v", try+1, err)
			}
		}
		if err := host.furnishHostEnd(ends[1], w); !errors.Is(err, unix.EEXIST) {
			t.Errorf("another pod took the address: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
