package bench

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// BenchmarkInstructions counts what a datagram's way takes, from the sender's call to the
// receiver's socket, in a machine whose one processor takes a nanosecond for each instruction (make
// kernels). There the figures of two runs are alike.
//
// Next to Sluice's ways are those with a flowtable made by hand on both nodes, which takes
// established connections past all chains: what Sluice goes without (ADR 29).
func BenchmarkInstructions(b *testing.B) {
	if os.Getenv("SLUICE_INSTRUCTIONS") == "" {
		b.Skip("it needs a processor that counts: " +
			"make kernels KERNELS='-suites e2e/bench trixie-backports'")
	}
	judged := counted{open: udpSockets, state: "new"}
	judged.way, judged.nodes = sluiceStopped(b, "sluice-vxlan-judged", vxlan)
	ways := []counted{
		{way: vxlanTracked(b, "vxlan-by-hand-tracked"), open: udpPair},
		{way: vxlanTranslated(b, "vxlan-by-hand-translated"), open: udpPair},
		judged,
	}
	for _, backend := range []struct {
		name, config string
		links        []string
	}{{"vxlan", vxlan, []string{names.Tunnel + "1"}}, {"host-gw", hostGW, []string{"eth0"}}} {
		plain := counted{open: udpPair, state: "established"}
		fast := plain
		fast.flowLinks = backend.links
		plain.way, plain.nodes = sluiceStopped(b, "sluice-"+backend.name, backend.config)
		fast.way, fast.nodes = sluiceStopped(b, plain.name+"-flowtable", backend.config)
		for node := range fast.nodes {
			fast.addFlowtable(node)
		}
		ways = append(ways, plain, fast)
	}
	var counts []float64
	for _, w := range ways {
		counts = append(counts, w.count(b))
	}
	for i, w := range ways {
		report(b, w.name, map[string]float64{
			"instructions/datagram": counts[i],
			"of-tracked":            counts[i] / counts[0],
			"of-translated":         counts[i] / counts[1],
		})
	}
}

// counted is a way whose instructions are counted.
type counted struct {
	way
	open  func(*testing.B, way) (client, server socket)
	nodes cable // none of a way made by hand
	// state is that of its connections, for connection tracking.
	state string
	// flowLinks are the links besides pods' of the flowtables, nil if there are no flowtables.
	flowLinks []string
}

// addFlowtable adds one to a node, for all links by which packets of pods come. One that is there
// goes in the same transaction.
func (w counted) addFlowtable(node int) {
	end := [...]place{w.client, w.server}[node]
	links := append(slices.Clone(w.flowLinks), end.(*testnet.Host).Interface())
	w.nodes[node].NftInput(fmt.Sprintf(`table inet by-hand
		delete table inet by-hand
		table inet by-hand {
			flowtable flows { hook ingress priority 0; devices = { %s }; }
			chain forward { type filter hook forward priority 10; ct state established flow add @flows; }
		}`, strings.Join(links, ", ")))
}

// count returns how many instructions a datagram takes: the median of some rounds. It goes by the
// machine's clock, since the kernel may do a part of the work on another thread.
func (w counted) count(b *testing.B) float64 {
	b.Helper()
	client, server := w.open(b, w.way)
	makeRoom(b, server)
	const rounds = 9
	var counts []float64
	for range rounds + 1 { // the first has everything warm
		took, err := sendAll(client, server, uptime)
		must(b, err)
		counts = append(counts, float64(took.Nanoseconds())/fixedLoad)
	}
	if w.nodes[0] != nil {
		for node := range w.nodes {
			w.closes(b, node, client, server)
		}
	}
	return median(counts[1:])
}

// closes fails unless a rule on one of the nodes drops all packets of the connection. Where flows
// go past all rules, it does only when the flowtable has been made anew: flows come back to the
// rules then, and their connections are still known.
func (w counted) closes(b *testing.B, node int, client, server socket) {
	b.Helper()
	w.nodes[node].NftInput(fmt.Sprintf("table inet closed { chain forward { "+
		"type filter hook forward priority 5; ct state %s drop; }; }", w.state))
	defer w.nodes[node].Nft("delete", "table", "inet", "closed")
	if w.flowLinks != nil {
		w.passes(b, client, server, fixedLoad)
		w.addFlowtable(node)
	}
	w.passes(b, client, server, 0)
}

// passes fails unless so many of fixedLoad datagrams arrive.
func (w counted) passes(b *testing.B, client, server socket, want int) {
	b.Helper()
	data, arrived := make([]byte, 64), 0
	for range fixedLoad {
		must(b, write(client.fd(), data))
	}
	rest := unix.NsecToTimeval(stretch.By(100 * time.Millisecond).Nanoseconds())
	must(b, unix.SetsockoptTimeval(server.fd(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &rest))
	for ; ; arrived++ {
		_, err := read(server.fd(), data)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		must(b, err)
	}
	if arrived != want {
		b.Fatalf("%s: %d of %d datagrams arrived, want %d", w.name, arrived, fixedLoad, want)
	}
}
