package testnet

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// eventually waits until ok, at most 10 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// conntrackCount returns the number of conntrack entries of the node.
func conntrackCount(n *Node) (int, error) {
	var text []byte
	err := n.Do(func() (err error) {
		text, err = os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		return err
	})
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func TestFloodArrivesUntilDropped(t *testing.T) {
	t.Parallel()
	const enough = 3 * floodPorts / 2 // each port, some twice
	for _, dst := range addrsB {
		t.Run(dst.String(), func(t *testing.T) {
			t.Parallel()
			n := NewNode(t)
			a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
			sink := b.Sink(UDP, 9000)
			n.Nft(forwardChain + `add counter inet test new; add counter inet test other;
				add rule inet test forward ct state new counter name new accept; add rule inet test forward counter name other`)

			flood := a.Flood(at(dst, 9000), OnCPU(0))
			eventually(t, "packets arriving", func() bool { return sink.Received() > enough })
			flows, err := conntrackCount(n)
			if err != nil || flows < floodPorts/2 || flows > floodPorts {
				t.Errorf("got %d conntrack entries (%v), want one for each of %d ports", flows, err,
					floodPorts)
			}
			if got := n.Nft("list counter inet test other"); !strings.Contains(got, "packets 0 ") {
				t.Errorf("packets of a flood that weren't new: %s", got)
			}

			n.Nft("add chain inet test late { type filter hook forward priority 10; policy drop; }")
			// The last packet that was let in may still be under way, but not two ticks later.
			dropped := flood.Sent()
			eventually(t, "a batch of dropped packets", func() bool {
				return flood.Sent() > dropped+1000
			})
			before := sink.Received()
			dropped = flood.Sent()
			eventually(t, "more dropped packets", func() bool {
				return flood.Sent() > dropped+enough
			})
			if got := sink.Received(); got != before {
				t.Errorf("%d packets arrived although dropped", got-before)
			}

			sent := flood.Stop()
			if sent != flood.Stop() || sent < enough {
				t.Errorf("sent %d, then %d packets", sent, flood.Sent())
			}
			n.Nft("delete chain inet test late")
			if got := sink.Received(); got != before {
				t.Errorf("%d packets arrived after the flood was stopped", got-before)
			}
		})
	}
}

func TestFloodThatIsDroppedLeavesNoConntrackEntry(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
	sink := b.Sink(UDP, 9000)
	n.Nft(forwardChain + "add rule inet test forward ct state new drop")
	flood := a.Flood(at(addrsB[0], 9000))
	eventually(t, "packets sent", func() bool { return flood.Sent() > 2*floodPorts })
	flood.Stop()
	if got := sink.Received(); got != 0 {
		t.Errorf("%d packets arrived although dropped", got)
	}
	flows, err := conntrackCount(n)
	if err != nil || flows != 0 {
		t.Errorf("got %d conntrack entries (%v), want 0", flows, err)
	}
}

func TestSinkCountsExactly(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
	sink := b.Sink(UDP, 9000)
	const packets = 100
	for i, dst := range addrsB {
		var conn net.Conn
		err := a.Do(func() (err error) {
			conn, err = net.Dial("udp", at(dst, 9000).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for range packets {
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "all packets", func() bool {
			return sink.Received() == uint64((i+1)*packets)
		})
	}
}
