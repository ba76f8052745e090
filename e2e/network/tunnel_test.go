package network

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/lab"
)

// closedInput is a host's firewall that knows nothing of the tunnel.
const closedInput = `add table inet fw
add chain inet fw in { type filter hook input priority 0; policy drop; }
add rule inet fw in iif lo accept
add rule inet fw in ct state established,related accept
add rule inet fw in meta l4proto ipv6-icmp accept`

// noticeTime is how long it may take on a busy machine until a fault of the tunnel is reported:
// some questions, and the grace.
const noticeTime = 90 * time.Second

// A firewall on one node that drops the tunnel's packets cuts its pods off. Both sides report that,
// and its end.
func TestTunnelBlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "tunnel", lab.Options{Nodes: 3, Underlay: lab.IPv4,
		AgentArgs: []string{"--tunnel-probe-interval=2s"}})
	w.run("node1", "default/a")
	w.run("node2", "default/b")
	w.run("node3", "default/c")
	nodes := w.NodeNames()
	for _, node := range nodes {
		w.awaitTunnel(node, 2, 0, 0)
	}
	w.talk("default/a", "default/b")
	for _, node := range nodes {
		if notes := w.events(node, "TunnelBlocked"); len(notes) > 0 {
			t.Errorf("%s complains of %q before there is a cause", node, notes)
		}
	}

	for _, node := range nodes {
		w.check(node, "12 checks: ")
	}

	w.nft("node2", closedInput)
	w.check("node2", "warn  firewall", "accept UDP port 8472",
		"table inet fw, chain in (policy drop)")
	for _, pair := range [][2]string{{"default/a", "default/b"}, {"default/b", "default/c"}} {
		if n := w.working(pair[0], pair[1]); n != 0 {
			t.Errorf("%s connects to %s over %d families: the firewall doesn't block the tunnel",
				pair[0], pair[1], n)
		}
	}
	t.Log(w.awaitEvent("node2", "TunnelBlocked", "None of 2 nodes", "(node1, node3)",
		"nothing has come in",
		"nftables table inet fw, chain in (policy drop)", "Accept UDP port 8472 on eth0"))
	t.Log(w.awaitEvent("node1", "TunnelBlocked",
		"1 of 2 nodes don't answer through the tunnel (node2)", "UDP port 8472"))
	w.awaitEvent("node3", "TunnelBlocked", "(node2)")
	w.awaitTunnel("node2", 0, 2, 0)
	w.awaitTunnel("node1", 1, 1, 0)
	w.talk("default/a", "default/c")
	if n := w.working("default/a", "default/b"); n != 0 {
		t.Errorf("pods connect over %d families while that is reported", n)
	}

	w.nft("node3", closedInput) // so that no node answers node1, whose fault it isn't
	t.Log(w.awaitEvent("node1", "TunnelBlocked", "None of 2 nodes", "(node2",
		"although packets come in by it"))

	w.nft("node3", "delete table inet fw")
	w.nft("node2", "add rule inet fw in udp dport 8472 accept")
	w.eventually(settleTime, "pods to talk again", func() bool {
		return w.working("default/a", "default/b") == 2
	})
	for _, node := range nodes {
		w.awaitTunnel(node, 2, 0, 0)
		w.awaitEvent(node, "TunnelPasses", "2 answer")
	}
	w.talk("default/b", "default/c")
}

// check runs sluice-agent check on a node beside its agent, where nothing may fail, and wants it to
// say something. It may warn of the kernel, and of what it is to say.
func (w *world) check(node string, says ...string) {
	w.t.Helper()
	programs, err := assets.Wiring(w.t.Context(), w.t.Output(), false)
	must(w.t, err)
	n := w.Node(node)
	var out []byte
	err = n.Do(func() (err error) {
		out, err = exec.CommandContext(w.t.Context(), programs.Agent, "check", "--node-name="+node,
			"--kubeconfig="+n.Kubeconfig(), "--net-conf="+w.NetConf(),
			"--state-dir="+filepath.Dir(n.Socket()), "--cni-conf-dir="+n.ConfDir()).CombinedOutput()
		return err
	})
	if err != nil {
		w.t.Errorf("%s: %v", node, err)
	}
	for line := range strings.Lines(string(out)) {
		name, isWarning := strings.CutPrefix(line, "warn  ")
		if isWarning && !strings.HasPrefix(name, "kernel ") &&
			!slices.ContainsFunc(says, func(s string) bool { return strings.HasPrefix(line, s) }) {
			w.t.Errorf("%s: %s", node, line)
		}
	}
	for _, text := range says {
		if !strings.Contains(string(out), text) {
			w.t.Errorf("%s: it doesn't say %q:\n%s", node, text, out)
		}
	}
}

// awaitTunnel waits until a node counts so many others as answering, as silent, and as not asked.
func (w *world) awaitTunnel(node string, answering, silent, untried int) {
	w.t.Helper()
	w.eventually(noticeTime, fmt.Sprintf("%d to answer %s, %d to be silent and %d not to be asked",
		answering, node, silent, untried), func() bool {
		for state, want := range map[string]int{"answering": answering, "silent": silent,
			"untried": untried} {
			if w.metric(node, fmt.Sprintf("sluice_tunnel_peers{state=%q}", state)) !=
				float64(want) {
				return false
			}
		}
		return true
	})
}

// awaitEvent waits for an Event about a node that holds all of these texts, and returns it.
func (w *world) awaitEvent(node, reason string, texts ...string) (note string) {
	w.t.Helper()
	var notes []string
	held := func() bool {
		notes = w.events(node, reason)
		i := slices.IndexFunc(notes, func(n string) bool {
			return !slices.ContainsFunc(texts, func(text string) bool {
				return !strings.Contains(n, text)
			})
		})
		if i >= 0 {
			note = notes[i]
		}
		return i >= 0
	}
	defer func() {
		if note == "" {
			w.t.Logf("%s has of %s: %q", node, reason, notes)
		}
	}()
	w.eventually(noticeTime, fmt.Sprintf("event %s on %s with %q", reason, node, texts), held)
	return note
}
