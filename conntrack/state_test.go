package conntrack

import (
	"errors"
	"maps"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestStates: real connections have the states that they are in.
func TestStates(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	client := node.Pod("client", addrs("10.1.0.2", "fd00::2")...)
	server := node.Pod("server", addrs("10.1.0.3", "fd00::3")...)
	server.ServeTCP(80)
	server.ServeUDP(80)
	node.Nft("add table inet test; add chain inet test forward { type filter hook forward " +
		"priority 0; }; add rule inet test forward ct state established accept")
	in81 := "add table inet test; add chain inet test input { type filter hook input priority 0; " +
		"}; add rule inet test input th dport 81 drop"
	if err := server.Do(func() error { return exec.Command("nft", in81).Run() }); err != nil {
		t.Fatalf("keeping the server from answering: %v", err)
	}
	for _, to := range addrs("10.1.0.3", "fd00::3") {
		from := client.Addr4()
		if to.Is6() {
			from = client.Addr6()
		}
		open := client.Open(t, testnet.TCP, netip.AddrPortFrom(to, 80))
		answered := client.Open(t, testnet.UDP, netip.AddrPortFrom(to, 80))
		ended := client.Open(t, testnet.TCP, netip.AddrPortFrom(to, 80))
		want := map[uint16]State{
			open.LocalAddr().Port(): Established, answered.LocalAddr().Port(): Answered,
			ended.LocalAddr().Port(): Closed,
			firstSYN:                 Unanswered, firstDatagram: Unanswered,
		}
		ended.Close()
		silent := netip.AddrPortFrom(to, 81)
		err := errors.Join(client.SendTCP(netip.AddrPortFrom(from, firstSYN), silent, testnet.SYN,
			1, 0), client.SendUDP(netip.AddrPortFrom(from, firstDatagram), silent))
		if err != nil {
			t.Fatal(err)
		}
		awaitStates(t, node, from, want)
	}
}

// The ports of a client that gets no answer.
const firstSYN, firstDatagram = 4242, 4243

// awaitStates waits until the connections from these ports are in these states.
func awaitStates(t *testing.T, node *testnet.Node, from netip.Addr, want map[uint16]State) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var got map[uint16]State
	for deadline := time.Now().Add(stretch.By(time.Minute)); !maps.Equal(got, want); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("connections from %s are %v, want %v", from, got, want)
		}
		got = map[uint16]State{}
		in(t, node, func() error {
			table, err := Open()
			if err != nil {
				return err
			}
			defer table.Close()
			entries, err := table.Find([]Query{OpenedBy(from)}, func(e *Entry) bool {
				return e.Orig.Src == from
			})
			for i := range entries {
				got[entries[i].Orig.SrcPort] = entries[i].State
			}
			return err
		})
	}
}
