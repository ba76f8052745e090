package kernel_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/test/testnet"
	"github.com/sluice-net/sluice/verify/kernel"
)

func read(t *testing.T, n *testnet.Node) (*kernel.Program, error) {
	t.Helper()
	return kernel.Read(context.Background(), kernel.Options{NetNS: n.NSFd()})
}

// TestUnknownIsAnError: nothing in the table that isn't understood is passed over, and the error
// names it.
func TestUnknownIsAnError(t *testing.T) {
	t.Parallel()
	const base = "chain b { type filter hook forward priority 0; }; "
	for name, c := range map[string]struct{ table, want string }{
		"another table's business": {base, ""},
		"expression":               {base + "chain c { meta mark 1 accept; }", "key 3"},
		"goto":                     {base + "chain c { }; chain d { goto c; }", "verdict -4"},
		"statement":                {base + "chain c { meta nftrace set 1; }", "attribute 3"},
		"header": {base + "chain c { tcp sport 80 accept; }",
			"transport header 0+2"},
		"bits of a port": {base + "chain c { th dport & 0xff == 1 accept; }",
			"some bits of"},
		"address type": {base + "chain c { fib daddr type multicast accept; }",
			"local"},
		"route": {base + "chain c { fib saddr oif missing drop; }", "result 1"},
		"reject": {base + "chain c { reject with icmpx admin-prohibited; }",
			"type 2"},
		"connection's mark": {base + "chain c { ct mark 1 accept; }", "key 3"},
		"connection's destination": {base + "chain c { ct original ip daddr 10.0.0.1 accept; }",
			"key 20"},
		"behind a limit": {base + "chain c { limit rate 1/second accept; }", "behind a limit"},
		"policy": {"chain b { type filter hook forward priority 0; policy drop; }",
			"policy"},
		"type":          {"chain b { type route hook output priority 0; }", `type "route"`},
		"timeout":       {"set s { type ipv4_addr; timeout 1m; }", "attribute 11"},
		"dynamic set":   {"set s { type ipv4_addr; flags dynamic; }", "flags"},
		"anonymous set": {base + "chain c { tcp dport {1, 2} accept; }", "flags"},
		"counted elements": {"set s { type ipv4_addr; counter; elements = {10.0.0.1}; }",
			"attribute"},
		"object":  {"counter c { }", `object: "c"`},
		"dormant": {"flags dormant; " + base, "dormant"},
		"verdicts by ranges": {base + "map m { type ipv4_addr : verdict; flags interval; " +
			"elements = {10.0.0.0/8 : drop}; }; chain c { ip saddr vmap @m; }",
			"verdicts by ranges"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testnet.NewNode(t)
			// The nft program wants a line's end before a brace.
			lines := strings.NewReplacer("; ", "\n", ";}", "\n}", " }", "\n}\n", "{ ", "{\n")
			n.NftInput("table inet other {\ncounter c {\n}\nchain c {\nmeta mark 1 " +
				"accept\n}\n}\ntable inet sluice {\n" + lines.Replace(c.table) + "\n}\n")
			_, err := read(t, n)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("want an error with %q, got %v", c.want, err)
			}
		})
	}
}

// TestReadsWhatIsThere: what a listing says is what evaluation says.
func TestReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	n := testnet.NewNode(t)
	n.NftInput(`table inet sluice {
		set peers { type ipv4_addr; flags interval; elements = { 10.0.0.0-10.0.0.9, 10.0.0.20/32, 255.255.255.0/24 }; }
		set named { type ipv4_addr . inet_proto . inet_service; elements = { 10.0.0.5 . tcp . 443 }; }
		map pods { type ipv4_addr . ifname : verdict; elements = { 10.1.0.1 . "slup1" : jump pod, 10.1.0.2 . "slup2" : accept }; }
		chain pod {
			ip daddr . meta l4proto . th dport @named accept
			ip saddr != @peers return
			tcp dport 80-90 accept
			udp dport 53 accept
			icmp type echo-request counter drop
		}
		chain base {
			type filter hook forward priority 0
			ct state established accept
			ip daddr . oifname vmap @pods
			oifname "slup*" meta l4proto tcp tcp flags & syn == 0 reject with tcp reset
			oifname "slup*" limit rate 1/second log prefix "x"
			oifname "slup*" drop
		}
	}
`)
	// The type of IPv4's ICMP is read, but no class says it.
	if _, err := read(t, n); err != nil {
		t.Fatal(err)
	}
	n.NftInput("flush chain inet sluice pod\nadd rule inet sluice pod ip daddr . meta l4proto . " +
		"th dport @named accept\n" +
		"add rule inet sluice pod ip saddr != @peers return\nadd rule inet sluice pod tcp dport " +
		"80-90 accept\nadd rule inet sluice pod udp dport 53 accept\n")
	p, err := read(t, n)
	if err != nil {
		t.Fatal(err)
	}
	ev := kernel.NewEvaluator(p)
	for _, c := range []struct {
		src, dst, out string
		state         kernel.State
		noSYN         bool
		pass, reset   string
	}{
		{"10.0.0.9", "10.1.0.1", "slup1", kernel.New, false, "TCP 80-90, UDP 53", "nothing"},
		{"10.0.0.10", "10.1.0.1", "slup1", kernel.New, false, "nothing", "nothing"},
		{"10.0.0.20", "10.1.0.1", "slup1", kernel.New, true, "TCP 80-90, UDP 53",
			"TCP 0-79, TCP 91-65535"},
		{"255.255.255.255", "10.1.0.1", "slup1", kernel.New, false, "TCP 80-90, UDP 53", "nothing"},
		{"10.0.0.10", "10.1.0.1", "slup1", kernel.Established, false, "everything", "nothing"},
		{"10.0.0.1", "10.1.0.2", "slup2", kernel.New, false, "everything", "nothing"},
		{"10.0.0.1", "10.1.0.2", "slup1", kernel.New, false, "nothing", "nothing"},
		{"10.0.0.1", "10.0.0.5", "eth0", kernel.New, false, "everything", "nothing"},
	} {
		class := kernel.Class{In: "eth0", Out: c.out, Src: netip.MustParseAddr(c.src),
			Dst: netip.MustParseAddr(c.dst), State: c.state, NoSYN: c.noSYN}
		got, err := ev.Evaluate(kernel.Forward, class)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if got.Pass.String() != c.pass || got.Reset.String() != c.reset {
			t.Errorf("%+v: passes %s, resets %s, drops %s", c, got.Pass, got.Reset, got.Drop)
		}
	}
}

// TestEndsOfConnections: a connection's ends are read as such, each in its direction, and what has
// no connection of the IP version doesn't match.
func TestEndsOfConnections(t *testing.T) {
	t.Parallel()
	n := testnet.NewNode(t)
	n.NftInput(`table inet sluice {
		set pairs { type ipv4_addr . ifname . ipv4_addr; elements = { 10.0.0.1 . "slup1" . 10.0.0.1 }; }
		chain base {
			type filter hook forward priority 0
			ct state related ip saddr . iifname . ct original ip saddr @pairs meta l4proto icmp accept
			ct state related ip saddr . iifname . ct reply ip saddr @pairs meta l4proto tcp accept
			ct state established ct original ip6 saddr fd00::1 accept
			drop
		}
	}
`)
	p, err := read(t, n)
	if err != nil {
		t.Fatal(err)
	}
	own, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, c := range []struct {
		src, original, reply netip.Addr
		in                   string
		state                kernel.State
		pass                 string
	}{
		{own, own, other, "slup1", kernel.Related, "ICMP"},
		{own, other, own, "slup1", kernel.Related, "TCP"},
		{own, other, other, "slup1", kernel.Related, "nothing"},
		{own, netip.Addr{}, netip.Addr{}, "slup1", kernel.Related, "nothing"},
		{own, own, own, "slup2", kernel.Related, "nothing"},
		{other, own, own, "slup1", kernel.Related, "nothing"},
		{own, own, own, "slup1", kernel.New, "nothing"},
		{own, own, own, "slup1", kernel.Established, "nothing"}, // it has IPv4's
	} {
		class := kernel.Class{In: c.in, Out: "eth0", Src: c.src, Dst: other, State: c.state,
			OrigSrc: c.original, ReplySrc: c.reply}
		got, err := kernel.NewEvaluator(p).Evaluate(kernel.Forward, class)
		if err != nil || got.Pass.String() != c.pass {
			t.Errorf("%+v: passes %s, error %v", c, got.Pass, err)
		}
	}
	ev := kernel.NewEvaluator(p)
	if ev.Signature(own) == ev.Signature(other) {
		t.Error("an address of a pair is like one that isn't")
	}
}

// TestNoTable: a table that isn't there judges nothing.
func TestNoTable(t *testing.T) {
	t.Parallel()
	p, err := read(t, testnet.NewNode(t))
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr("10.0.0.1")
	got, err := kernel.NewEvaluator(p).
		Evaluate(kernel.Forward, kernel.Class{Src: a, Dst: a, State: kernel.New})
	if err != nil || !slices.Equal(got.Pass, kernel.Everything()) {
		t.Errorf("it passes %s, error %v", got.Pass, err)
	}
}
