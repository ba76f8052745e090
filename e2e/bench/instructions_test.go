package bench

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
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
	for _, backend := range []struct{ name, config string }{{"vxlan", vxlan}, {"host-gw", hostGW}} {
		plain := counted{open: udpPair, state: "established"}
		fast := plain
		fast.flowtable = true
		plain.way, plain.nodes = sluiceStopped(b, "sluice-"+backend.name, backend.config)
		fast.way, fast.nodes = sluiceStopped(b, plain.name+"-flowtable", backend.config)
		fast.addFlowtable()
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
	state     string
	flowtable bool
}

// sluiceStopped is the way through Sluice's pod network, with policies. Its agents have ended.
func sluiceStopped(b *testing.B, name, backend string) (way, cable) {
	b.Helper()
	c := newCable(b)
	w, agents := c.sluice(b, name, backend, true)
	for _, a := range agents {
		a.stop()
	}
	return w, c
}

// addFlowtable adds one to each node, for all links by which packets of pods come.
func (w counted) addFlowtable() {
	for i, end := range []place{w.client, w.server} {
		link, tunnel := end.(*testnet.Host).Interface(), ""
		if w.name == "sluice-vxlan-flowtable" {
			tunnel = ", " + names.Tunnel + "1"
		}
		w.nodes[i].NftInput(fmt.Sprintf(`table inet by-hand {
			flowtable flows { hook ingress priority 0; devices = { eth0, %s%s }; }
			chain forward { type filter hook forward priority 10; ct state established flow add @flows; }
		}`, link, tunnel))
	}
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
		w.close(b, client, server)
	}
	return median(counts[1:])
}

// close adds a rule that drops the connection's packets, and fails unless it does. Where flows go
// past all rules, it does only when the flowtable is gone: flows come back to the rules then, and
// their connections are still known.
func (w counted) close(b *testing.B, client, server socket) {
	b.Helper()
	w.nodes[0].NftInput(fmt.Sprintf("table inet closed { chain forward { "+
		"type filter hook forward priority 20; ct state %s drop; }; }", w.state))
	must(b, unix.SetsockoptTimeval(server.fd(), unix.SOL_SOCKET, unix.SO_RCVTIMEO,
		&unix.Timeval{Sec: 1}))
	if w.flowtable {
		_, err := sendAll(client, server, uptime)
		must(b, err)
		w.nodes[0].Nft("delete", "table", "inet", "by-hand")
	}
	if _, err := sendAll(client, server, uptime); !errors.Is(err, errLost) {
		b.Fatalf("%s: sending against a rule that drops: %v, want %v", w.name, err, errLost)
	}
}
