package podlink

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/testnet"
)

// The agent's healing may furnish a host end before a slow ADD does. What leads elsewhere is
// another pod's.
func TestFurnishHostEndTwice(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	err := node.Do(func() error {
		host, err := link.Open(link.ProcSys)
		if err != nil {
			return err
		}
		defer host.Close()
		var ends []newEnd
		for i, name := range []string{"slup0000000000a", "slup0000000000b"} {
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name},
				PeerName: fmt.Sprint("pod-", i)}
			if err := host.LinkAdd(veth); err != nil {
				return err
			}
			end, err := prepareHostEnd(host, Wiring{
				HostName: name, HostMAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(i)},
				PodMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1},
				Addrs:  cnitest.Addrs("10.9.0.1", "fd00:9::1"),
			})
			if err != nil {
				return err
			}
			ends = append(ends, end)
		}
		for try := range 2 {
			if err := ends[0].furnish(); err != nil {
				t.Errorf("time %d: %v", try+1, err)
			}
		}
		if err := ends[1].furnish(); !errors.Is(err, unix.EEXIST) {
			t.Errorf("another pod took the address: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
