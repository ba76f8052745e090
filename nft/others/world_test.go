package others

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/test/testnet"
)

// What the tests use as the pod network, and addresses of it.
var (
	network4 = netip.MustParsePrefix("10.244.0.0/15")
	network6 = netip.MustParsePrefix("fd00:10:244::/48")
	networks = []netip.Prefix{network4, network6}

	path4 = Path{Source: netip.MustParseAddr("10.244.0.1"),
		Destination: netip.MustParseAddr("10.244.0.2")}
	path6 = Path{Source: netip.MustParseAddr("fd00:10:244::1"),
		Destination: netip.MustParseAddr("fd00:10:244::2")}
)

const servedPort = 8080

// run runs a program in the node's namespace and returns what it prints. Without the program the
// test is skipped.
func (w world) run(program string, args ...string) string {
	w.t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		w.t.Skipf("needs %s", program)
	}
	var out []byte
	err := w.node.Do(func() (err error) {
		out, err = exec.Command(program, args...).CombinedOutput()
		return err
	})
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// world is a node with two pods in the pod network, of which b serves.
type world struct {
	t    *testing.T
	node *testnet.Node
	a, b *testnet.Host
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{t: t, node: testnet.NewNode(t)}
	w.a = w.node.Pod("a", netip.MustParseAddr("10.245.1.1"),
		netip.MustParseAddr("fd00:10:244:1::1"))
	w.b = w.node.Pod("b", netip.MustParseAddr("10.245.1.2"),
		netip.MustParseAddr("fd00:10:244:1::2"))
	w.b.ServeTCP(servedPort)
	return w
}

func (w world) server(family string) netip.AddrPort {
	if family == familyIP6 {
		return netip.AddrPortFrom(w.b.Addr6(), servedPort)
	}
	return netip.AddrPortFrom(w.b.Addr4(), servedPort)
}

func (w world) mustReach(families ...string) {
	w.t.Helper()
	for _, f := range families {
		w.a.MustReach(w.t, testnet.TCP, w.server(f))
	}
}

func (w world) mustNotReach(families ...string) {
	w.t.Helper()
	for _, f := range families {
		// A firewall may refuse by ICMP as well as in silence.
		if r := w.a.Connect(testnet.TCP, w.server(f)); r.OK {
			w.t.Errorf("%s: %v", f, r)
		}
	}
}

// blockers returns the names of what blocks on the node.
func (w world) blockers(h Hook) []string {
	w.t.Helper()
	var names []string
	err := w.node.Do(func() error {
		found, err := Blockers(h)
		for _, b := range found {
			names = append(names, b.String())
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// try tries both families on the node.
func (w world) try(o TrialOptions) Result {
	w.t.Helper()
	var r Result
	err := w.node.Do(func() (err error) {
		r, err = TryForwarding(w.t.Context(), o)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// install installs rules. Unlike in the nft tool's syntax, a block may end on the line of its last
// statement.
func (w world) install(ruleset string) {
	w.t.Helper()
	w.node.NftInput(strings.ReplaceAll(ruleset, "}", "\n}\n"))
}
