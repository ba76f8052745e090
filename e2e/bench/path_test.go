package bench

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPath is what the parts of the ruleset cost a datagram of an allowed connection from pod
// to pod through the tunnel: the way with all of it, and with one part taken out of both nodes.
func BenchmarkPath(b *testing.B) {
	path(b, udpPair, []part{
		{"whole", nil},
		{"no-cut-label", []takenOut{{egress, "ct label"}, {input, "ct label"}}},
		{"no-pod-fib", []takenOut{{"origin/pods", "fib"}}},
		{"no-tunnel-fib", []takenOut{{origin, "fib"}}},
		{"no-fib", []takenOut{{"origin/pods", "fib"}, {origin, "fib"}}},
		{"no-ingress-chain", []takenOut{{ingress, ""}}},
		{"no-forward-chains", forwardChains},
		{"no-input-chain", []takenOut{{input, ""}}},
		{"no-nat-chains", natChains},
		{"no-chains-but-untracking", append([]takenOut{{input, ""}, {origin, "fib"},
			{origin, "jump"}}, append(forwardChains, natChains...)...)},
	})
}

// BenchmarkPathJudged is the same for datagrams that are never answered: each is judged.
func BenchmarkPathJudged(b *testing.B) {
	path(b, udpSockets, []part{
		{"whole", nil},
		{"no-shortcut-of-the-tunnel", []takenOut{{egress, `iifname "sluice`},
			{ingress, `oifname "sluice`}}},
		{"no-errors", []takenOut{{egress, "errors/"}, {ingress, "errors/"}}},
		{"no-forward-chains", forwardChains},
	})
}

// BenchmarkPieces is what a chain or a rule costs a packet that it doesn't concern: ten of them on
// a way that has none but one chain.
func BenchmarkPieces(b *testing.B) {
	const many = 10
	pieces := [...]struct {
		name, set, rule string
		chains          int
	}{
		{name: "chain", chains: many + 1},
		{name: "ct-state", rule: "ct state related"},
		{name: "ct-label", rule: "ct label 5"},
		{name: "interface-name", rule: `iifname "foo*"`},
		{name: "protocol", rule: "meta l4proto tcp"},
		{name: "port", rule: "udp dport 77"},
		{name: "address", rule: "ip daddr 192.0.2.1"},
		{name: "address-in-set", rule: "ip saddr @s",
			set: "type ipv4_addr; elements = { 192.0.2.1, 192.0.2.5, 192.0.2.9 };"},
		{name: "address-and-interface-in-set", rule: "ip saddr . iifname @s",
			set: `type ipv4_addr . ifname; elements = { 192.0.2.1 . "a", 192.0.2.5 . "b" };`},
		{name: "address-in-ranges", rule: "ip saddr @s",
			set: "type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.18.0.0/16 };"},
		{name: "port-in-set", rule: "th dport . meta l4proto @s",
			set: "type inet_service . inet_proto; elements = { 80 . tcp, 443 . tcp, 53 . udp };"},
		{name: "port-in-ranges", rule: "th dport . meta l4proto @s",
			set: "type inet_service . inet_proto; flags interval; elements = { 80 . tcp, " +
				"443-444 . tcp, 53 . udp };"},
		{name: "way-back", rule: "fib saddr . iif oif missing"},
		{name: "jump", rule: "jump empty"},
	}
	reference, nodes := vxlanTrackedOn(b, "none")
	nodes[1].NftInput("table inet pieces { chain c { type filter hook forward priority 10; }; }")
	ways := []way{reference}
	for _, piece := range pieces {
		w, nodes := vxlanTrackedOn(b, piece.name)
		rules := "chain empty { }\n"
		if piece.set != "" {
			rules += fmt.Sprintf("set s { %s }\n", piece.set)
		}
		if piece.chains == 0 {
			rules += "chain c {\ntype filter hook forward priority 10;\n"
			for range many {
				rules += piece.rule + "\n"
			}
			rules += "}\n"
		}
		for i := range piece.chains {
			rules += fmt.Sprintf("chain c%d { type filter hook forward priority %d; }\n", i, i+10)
		}
		nodes[1].NftInput("table inet pieces {\n" + rules + "}\n")
		ways = append(ways, w)
	}
	columns := fixedLoads(b, ways, udpPair)
	for i, piece := range pieces {
		var extra []float64 // by round
		for round, figure := range columns[i+1].figures {
			extra = append(extra, (1e9/figure-1e9/columns[0].figures[round])/many)
		}
		report(b, piece.name, map[string]float64{"extra-ns": median(extra)})
	}
}

// part is a part of the ruleset that a way goes without.
type part struct {
	name string
	out  []takenOut
}

// path measures ways without one part each, next to two made by hand: with connection tracking, and
// with what every node with Services has besides, chains for address translation.
func path(b *testing.B, open func(*testing.B, way) (client, server socket), parts []part) {
	b.Helper()
	ways := []way{vxlanTracked(b, "vxlan-by-hand-tracked"),
		vxlanTranslated(b, "vxlan-by-hand-translated")}
	for _, p := range parts {
		ways = append(ways, sluiceWithout(b, p))
	}
	columns := fixedLoads(b, ways, open)
	for _, c := range columns {
		report(b, c.name, map[string]float64{
			"ns/datagram":   1e9 / median(c.figures),
			"of-tracked":    median(c.ratios(columns[0])),
			"of-translated": median(c.ratios(columns[1])),
			"of-whole":      median(c.ratios(columns[2])),
		})
	}
}

// fixedLoad is how many datagrams one measurement sends.
const fixedLoad = 5000

// fixedLoads measures, by turns, how many datagrams go each way for a second of the sender's thread
// on a CPU, as openUDPWork does. Nobody waits for them: to wake a reader costs as much as the rest,
// and not always the same.
func fixedLoads(b *testing.B, ways []way,
	open func(*testing.B, way) (client, server socket)) []column {
	b.Helper()
	rounds := 9
	if long {
		rounds = 151
	}
	var names []string
	var meters []func() (float64, error)
	for _, w := range ways {
		client, server := open(b, w)
		names, meters = append(names, w.name), append(meters, fixedWork(b, client, server))
	}
	measure := func(i int) (float64, error) { return meters[i]() }
	for i := range meters { // everything is warm then
		_, err := measure(i)
		must(b, err)
	}
	return interleave(b, rounds, names, measure)
}

func fixedWork(b *testing.B, client, server socket) func() (float64, error) {
	b.Helper()
	makeRoom(b, server)
	return func() (float64, error) {
		for range asks {
			took, err := sendAll(client, server, threadTime)
			if !errors.Is(err, errLost) {
				return fixedLoad / took.Seconds(), err
			}
		}
		return 0, fmt.Errorf("%d times: %w", asks, errLost)
	}
}

// makeRoom lets a server keep all that is sent before anybody reads.
func makeRoom(b *testing.B, server socket) {
	b.Helper()
	const buffered = 2 << 10 // of each, at most
	must(b, unix.SetsockoptInt(server.fd(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE,
		fixedLoad*buffered))
	must(b, unix.SetsockoptTimeval(server.fd(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &lossTimeout))
}

// errLost: on a machine that is busy, the kernel may have no room for one of them.
var errLost = errors.New("not all datagrams arrived")

// sendAll returns what the calling thread took to send, by a clock.
func sendAll(client, server socket, clock func() (time.Duration, error)) (took time.Duration,
	err error) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	before, err := clock()
	if err != nil {
		return 0, err
	}
	data := make([]byte, 64)
	for range fixedLoad {
		if err := write(client.fd(), data); err != nil {
			return 0, fmt.Errorf("sending: %w", err)
		}
	}
	after, err := clock()
	if err != nil {
		return 0, err
	}
	for range fixedLoad {
		if _, err := read(server.fd(), data); errors.Is(err, unix.EAGAIN) {
			return 0, errLost
		} else if err != nil {
			return 0, fmt.Errorf("receiving: %w", err)
		}
	}
	return after - before, nil
}
