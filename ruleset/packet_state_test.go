package ruleset_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

// packetCounter counts what passed our chains on forward: a base chain of the test's own, after
// ours.
type packetCounter struct {
	w    *packetWorld
	name string
	last string
}

func (w *packetWorld) counter(family int, match string) *packetCounter {
	w.T.Helper()
	c := &packetCounter{w: w, name: fmt.Sprintf("after-%d", family)}
	w.Node.Nft("add", "table", "inet", c.name)
	w.Node.Nft("add", "chain", "inet", c.name, "forward",
		"{ type filter hook forward priority 10; }")
	version := map[int]string{4: "ipv4", 6: "ipv6"}[family]
	w.Node.Nft("add", "rule", "inet", c.name, "forward",
		"meta nfproto "+version+" "+match+" counter")
	c.last = c.read()
	return c
}

func (c *packetCounter) read() string {
	_, after, _ := strings.Cut(c.w.Node.Nft("list", "table", "inet", c.name), "counter packets ")
	count, _, _ := strings.Cut(after, " ")
	return count
}

// expect waits until the counter shows n.
func (c *packetCounter) expect(n int) {
	c.w.T.Helper()
	c.last = fmt.Sprint(n)
	tick := time.NewTicker(stretch.By(5 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(packetworld.Patience); c.read() != c.last; <-tick.C {
		if time.Now().After(deadline) {
			c.w.T.Errorf("%s: %s packets passed, want %s", c.name, c.read(), c.last)
			return
		}
	}
}

// expectNoMore demands that nothing passed since the last expect. A packet of ours is through the
// hooks of a veth pair before the sender's call returns, and a marker sent after it proves that.
func (c *packetCounter) expectNoMore() {
	c.w.T.Helper()
	c.w.Allowed("ops/probe > out icmp") // the marker
	if got := c.read(); got != c.last {
		c.w.T.Errorf("%s: %s packets passed, want %s", c.name, got, c.last)
	}
}

// TestInvalidIsDropped: what conntrack can't place is dropped for a pod that is isolated in that
// direction, even where a rule allows everything, and not touched for others.
func TestInvalidIsDropped(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	for _, family := range packetworld.BothFamilies {
		c := w.counter(family, "ct state invalid")
		send := func(from, to string) {
			t.Helper()
			src, dst := netip.AddrPortFrom(w.Addr(from, family), 4242),
				netip.AddrPortFrom(w.Addr(to, family), 80)
			if err := w.Hosts[from].SendTCP(src, dst, testnet.SYN|testnet.FIN, 1, 0); err != nil {
				t.Fatal(err)
			}
		}
		send("out", "dev/web")
		c.expect(1)
		send("dev/web", "out")
		c.expect(2)
		w.SetPolicy(
			map[string]string{"dev/p": `{podSelector: {matchLabels: {app: web}}, ingress: [{}]}`})
		send("out", "dev/web")
		c.expectNoMore()
		send("dev/web", "out")
		c.expect(3)
		w.SetPolicy(
			map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}`})
		send("dev/web", "out")
		c.expectNoMore()
		w.SetPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: none}}}`})
	}
}

// TestICMPErrorsPass: an error about an allowed flow reaches its sender, with both ends isolated in
// both directions otherwise.
func TestICMPErrorsPass(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	const closed = 9999
	check := func() {
		t.Helper()
		for _, family := range packetworld.BothFamilies {
			r := w.Hosts["dev/web"].Connect(testnet.UDP,
				netip.AddrPortFrom(w.Addr("dev/db", family), closed),
				testnet.WithTimeout(5*time.Second))
			if !errors.Is(r.Err, testnet.ErrReset) {
				t.Errorf("IPv%d: want port unreachable, got %s", family, r)
			}
		}
	}
	check()
	w.SetPolicy(map[string]string{
		"dev/deny": `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		"dev/in":   `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 9999, protocol: UDP}]}]}`,
		"dev/out":  `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: 9999, protocol: UDP}]}]}`,
	})
	check()
	w.Denied("dev/web > dev/db icmp", "dev/db > dev/web icmp")
}

// TestExpectationsDontPass: a connection that a helper expects is related to an allowed one, and is
// judged all the same. An expectation of the test's own stands in for a helper such as FTP's.
func TestExpectationsDontPass(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	w.Node.NftInput(`table inet helper {
	ct expectation back { protocol tcp; dport 81; timeout 1m; size 12; l3proto ip; }
	chain prerouting { type filter hook prerouting priority -100; ip saddr ` +
		w.Addr("dev/web", 4).String() + ` tcp dport 80 ct state new ct expectation set "back"; }
}`)
	related := w.counter(4, "tcp dport 81 ct state related")
	// One connection each time: a second expectation of the same would drop it.
	expectBack := func() {
		t.Helper()
		err := w.Node.Do(func() error { return exec.Command("conntrack", "-F", "expect").Run() })
		if err != nil {
			t.Fatalf("forgetting expectations: %v", err)
		}
		dst := netip.AddrPortFrom(w.Addr("dev/db", 4), 80)
		r := w.Hosts["dev/web"].Connect(testnet.TCP, dst, testnet.WithTimeout(10*time.Second))
		if !r.OK {
			t.Fatalf("the connection that expects another: %s", r)
		}
	}
	expectBack()
	w.Allowed("dev/db > dev/web tcp/81 v4")
	related.expect(1) // control: it is expected, and passes
	w.SetPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: web}}}`})
	expectBack()
	w.Denied("dev/db > dev/web tcp/81 v4")
	related.expectNoMore()
}

// TestFragments: a datagram in fragments is judged as a whole, by the ports that only its first
// fragment has.
func TestFragments(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{})
	check := func(port uint16, want bool) {
		t.Helper()
		for _, family := range packetworld.BothFamilies {
			dst := netip.AddrPortFrom(w.Addr("dev/db", family), port)
			if got := w.bigQuery("dev/web", dst, want); got != want {
				t.Errorf("3,000 bytes to %s: answered %v, want %v", dst, got, want)
			}
		}
	}
	check(80, true)
	check(81, true)
	w.SetPolicy(
		map[string]string{
			"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 81, protocol: UDP}]}]}`})
	check(80, false)
	check(81, true)
}

// bigQuery sends a query that doesn't fit into a packet, and says whether an answer came. It is
// patient when one is expected.
func (w *packetWorld) bigQuery(from string, dst netip.AddrPort, patient bool) (answered bool) {
	w.T.Helper()
	tries := 1
	if patient {
		tries = 16
	}
	err := w.Hosts[from].Do(func() error {
		conn, err := net.Dial("udp", dst.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		for ; tries > 0 && !answered; tries-- {
			if _, err := conn.Write(make([]byte, 3000)); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(testnet.DefaultTimeout)); err != nil {
				return err
			}
			n, err := conn.Read(make([]byte, 65536))
			answered = err == nil && n > 0
		}
		return nil
	})
	if err != nil {
		w.T.Fatal(err)
	}
	return answered
}

// TestDenialOfMidStreamTCPIsAReset: conntrack takes up a connection that it has no entry of, in the
// middle; if policy denies it, its ends learn of it.
func TestDenialOfMidStreamTCPIsAReset(t *testing.T) {
	t.Parallel()
	for _, family := range packetworld.BothFamilies {
		w := newPacketWorld(t, ruleset.Config{})
		forget := func() {
			t.Helper()
			if err := w.Node.Do(func() error {
				return exec.Command("conntrack", "-F").Run()
			}); err != nil {
				t.Fatalf("forgetting connections: %v", err)
			}
		}
		dst := netip.AddrPortFrom(w.Addr("dev/db", family), 80)
		flow := w.Hosts["dev/web"].Open(t, testnet.TCP, dst)
		forget()
		if err := flow.Echo(); err != nil {
			t.Errorf("control: the connection doesn't live on without a policy: %v", err)
		}
		forget()
		w.SetPolicy(map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}}`})
		if err := flow.Echo(); !errors.Is(err, testnet.ErrReset) {
			t.Errorf("want a reset, got %v", err)
		}
		w.Denied("dev/web > dev/db tcp/80") // a new one: silence
		r := w.Hosts["dev/web"].Connect(testnet.TCP, dst)
		if !errors.Is(r.Err, testnet.ErrTimeout) {
			t.Errorf("a new connection: want silence, got %s", r)
		}
	}
}

// TestReinjectedByIPVS: what IPVS sends on from output has a source that isn't the node's. This
// kernel has no IPVS; a raw socket takes its place.
func TestReinjectedByIPVS(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t, ruleset.Config{IPVS: true})
	for _, family := range packetworld.BothFamilies {
		port := uint16(10000 + family)
		sink := w.Hosts["dev/db"].Sink(testnet.UDP, port)
		send := func(src netip.Addr) {
			t.Helper()
			err := w.Hosts["node"].SendUDP(netip.AddrPortFrom(src, 4242),
				netip.AddrPortFrom(w.Addr("dev/db", family), port))
			if err != nil && !errors.Is(err, unix.EPERM) {
				t.Fatal(err)
			}
		}
		await := func(n uint64) {
			t.Helper()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for deadline := time.Now().Add(packetworld.Patience); sink.Received() != n; <-tick.C {
				if time.Now().After(deadline) {
					t.Fatalf("%d packets received, want %d", sink.Received(), n)
				}
			}
		}
		send(w.Addr("prod/web", family))
		send(w.Addr("out", family))
		await(2)
		w.SetPolicy(
			map[string]string{
				"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}`})
		send(w.Addr("prod/web", family))
		send(w.Addr("out", family))
		send(w.Addr("dev/web", family)) // allowed by its label
		send(w.Addr("node", family))    // the node itself
		await(4)
		w.SetPolicy(map[string]string{
			"dev/q": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}`})
		send(w.Addr("dev/web", family)) // its own egress is judged there too
		send(w.Addr("node", family))
		await(5)
		for _, name := range []string{"p", "q"} {
			w.Cluster.DeletePolicy(policy.Key{Namespace: "dev", Name: name})
		}
		w.Apply()
	}
}

// TestListingReadsBack: the stock tool lists the table and takes the listing back, and the listing
// names policies and rules.
func TestListingReadsBack(t *testing.T) {
	t.Parallel()
	w := newPacketWorld(t,
		ruleset.Config{IPVS: true, AllowPodToNode: true, LogGroup: 100, LogPerSecond: 10})
	w.SetPolicy(map[string]string{
		"dev/allow-web": `{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress],
			ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 443}]}, {ports: [{port: http}]}],
			egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}, {namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}]}`,
	})
	listing := w.Node.Nft("list", "table", "inet", "sluice")
	for _, want := range []string{
		"chain pod/dev/db/", "chain policy/dev/allow-web/ingress",
		"dev/allow-web rule 0: namespace dev: app=web", "dev/allow-web rule 1",
		"0.0.0.0/0 except 10.0.0.0/8", "comment \"denied: ingress of dev/db\"", "udp dport 53",
	} {
		if !strings.Contains(listing, want) {
			t.Errorf("the listing doesn't have %q", want)
		}
	}
	other := testnet.NewNode(t)
	other.NftInput(listing)
	if again := other.Nft("list", "table", "inet", "sluice"); again != listing {
		t.Errorf("loaded elsewhere, the listing is another:\n%s", cmp.Diff(listing, again))
	}
	if t.Failed() {
		t.Log(listing)
	}
	if err := w.Table.Sync(context.Background(), w.Render.Ruleset(w.Cluster)); err != nil {
		t.Error(err)
	}
}

// TestLargeListingReadsBack: the same with 1,000 policies, and blocks that make sets of 5,000
// elements.
func TestLargeListingReadsBack(t *testing.T) {
	t.Parallel()
	const policies, blocks = 1000, 2500 // a block of an interval set is two elements
	specs := map[string]string{}
	for i := range policies {
		const ownSelector = `{matchExpressions: [{key: app, operator: In, values: [db, "%d"]}]}`
		specs[fmt.Sprintf("dev/policy-%d", i)] = fmt.Sprintf(`{podSelector: `+ownSelector+`,
			ingress: [{from: [{ipBlock: {cidr: 172.16.%d.%d/32}}], ports: [{port: %d}]}]}`, i,
			i/250, i%250, 1+i)
	}
	var cidrs strings.Builder
	for i := range blocks {
		fmt.Fprintf(&cidrs,
			"{ipBlock: {cidr: 100.64.%d.%d/31}}, {ipBlock: {cidr: 'fd64::%x:0/112'}}, ",
			i/60, i%60*4, 2*i)
	}
	specs["dev/blocks"] = fmt.Sprintf(`{podSelector: {matchLabels: {app: db}},
		ingress: [{from: [%s], ports: [{port: 80}]}]}`, strings.TrimSuffix(cidrs.String(), ", "))
	w := newPacketWorld(t, ruleset.Config{})
	w.SetPolicy(specs)
	listing := w.Node.Nft("list", "table", "inet", "sluice")
	for what, want := range map[string]int{"chain policy/": policies, "fd64::": blocks,
		"100.64.": blocks} {
		if got := strings.Count(listing, what); got < want {
			t.Errorf("the listing has %q %d times, fewer than %d", what, got, want)
		}
	}
	other := testnet.NewNode(t)
	other.NftInput(listing)
	if again := other.Nft("list", "table", "inet", "sluice"); again != listing {
		t.Error("loaded elsewhere, the listing is another")
	}
}
