package table

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/nfttest"
)

// TestManyPortRanges: a set of very many port ranges matches its ports of its protocol, and no
// other. With the protocol as the first field of the key, Linux 5.10.223 matched every other packet
// to any port (docs/kernels.md, port-ranges).
func TestManyPortRanges(t *testing.T) {
	t.Parallel()
	const tcp, udp, from = 6, 17, 10_000
	n := nfttest.NewNamespace(t)
	rs := nft.NewRuleset()
	fields := []nft.Field{nft.DstPort, nft.L4Proto}
	ports := rs.AddSet(&nft.Set{Name: "ports", Key: fields, Interval: true,
		Elements: map[nft.Element]nft.Verdict{nft.PortsElement(udp, 53, 53): {}}})
	for i := range 40 { // each takes the kernel some fifteen masks
		first := uint16(from + 1 + i*1000)
		ports.Elements[nft.PortsElement(tcp, first, first+997)] = nft.Verdict{}
	}
	loopback := nft.MatchAddr{Field: nft.DstAddr4, Addr: netip.MustParseAddr("127.0.0.1")}
	rs.AddChain(&nft.Chain{Name: "out", Base: &nft.Base{Hook: nft.HookOutput, Priority: 0},
		Rules: []nft.Rule{
			nfttest.Rule(loopback, nft.MatchProto{Proto: udp},
				nft.InSet{Fields: fields, Set: "ports"}, nft.Count{}, nfttest.Drop),
			nfttest.Rule(loopback, nft.MatchProto{Proto: udp}, nft.Count{}, nfttest.Drop),
		}})
	table, err := Open(Options{NetNS: int(n.NS.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	if err := table.Sync(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	sent := 0
	send := func(port int) error {
		conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		_, _ = conn.Write([]byte("x")) // dropped, which it is told
		sent++
		return conn.Close()
	}
	err = n.NS.Do(func(ns.NetNS) error {
		up := exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up")
		if err := up.Run(); err != nil {
			return err
		}
		for port := from; port < from+40_000; port += 97 {
			if err := send(port); err != nil {
				return err
			}
		}
		return send(53)
	})
	if err != nil {
		t.Fatal(err)
	}
	out := n.Nft("list", "chain", "inet", nft.TableName, "out")
	for _, want := range []string{"counter packets 1 bytes",
		fmt.Sprintf("counter packets %d bytes", sent-1)} {
		if !strings.Contains(out, want) {
			t.Errorf("of %d packets, one to a port of the set: expected %q in\n%s", sent, want, out)
		}
	}
}
