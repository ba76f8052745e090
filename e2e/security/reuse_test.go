package security

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

var served = []corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolUDP},
	{ContainerPort: 80}}

// What has the address that changes hands, on node2; and who else is there.
var (
	old      = pod{name: "old", node: "node2", app: "old", ports: served}
	heir     = pod{name: "heir", node: "node2", app: "heir", ports: served}
	friend   = pod{name: "friend", node: "node2", app: "friend"}
	stranger = pod{name: "stranger", node: "node2", app: "stranger"}

	remote   = pod{name: "remote", node: "node1", app: "client"}
	local    = pod{name: "local", node: "node2", app: "client"}
	receiver = pod{name: "receiver", node: "node1", app: "receiver", ports: served}
	ally     = pod{name: "ally", node: "node1", app: "friend"}
)

// TestAddressReuse: a pod's address goes to another pod, and nothing else does.
func TestAddressReuse(t *testing.T) {
	t.Parallel()
	for family, c := range map[lab.Families]struct {
		cidr    string // with room for one pod besides the others
		fillers []pod
	}{
		lab.IPv4: {"10.244.2.0/30", []pod{local}},
		lab.IPv6: {"fd00:10:244:2::/126", []pod{local, {name: "filler", node: "node2"}}},
	} {
		t.Run(string(family), func(t *testing.T) {
			t.Parallel()
			// Short, but longer than other nodes need to learn that a pod is gone.
			w := newWorld(t,
				lab.Options{Families: family, AgentArgs: []string{"--address-cool-down=3s"}})
			w.shrink("node2", netip.MustParsePrefix(c.cidr))
			w.start(append([]pod{remote, receiver, ally}, c.fillers...)...)
			t.Run("as a server", func(t *testing.T) { (&world{w.Lab, t}).inheritsCallers() })
			t.Run("as a client", func(t *testing.T) { (&world{w.Lab, t}).inheritsFriends() })
		})
	}
}

// shrink gives a node another range for its pods, and waits until it is used.
func (w *world) shrink(node string, cidr netip.Prefix) {
	w.t.Helper()
	w.must(w.Node(node).SetPodCIDRs(w.t.Context(), cidr))
	w.eventually("the routes to "+cidr.String(), func() bool {
		for _, n := range w.Nodes() {
			if !strings.Contains(w.command(n.Name(), "ip", "route", "show", "table", "all"),
				cidr.String()) &&
				!strings.Contains(w.command(n.Name(), "ip", "-6", "route", "show", "table", "all"),
					cidr.String()) {
				return false
			}
		}
		return true
	})
}

// replace ends a pod and starts another one, which must get its address. Meanwhile is called
// between.
func (w *world) replace(old, heir pod, meanwhile func(addr netip.Addr)) {
	w.t.Helper()
	before, err := w.Pod(old.place())
	w.must(err)
	w.end(old)
	meanwhile(before.Addresses[0])
	w.start(heir)
	after, err := w.Pod(heir.place())
	w.must(err)
	if !slices.Equal(before.Addresses, after.Addresses) {
		w.t.Fatalf("%s has %v, not %v as %s had", heir.name, after.Addresses, before.Addresses,
			old.name)
	}
}

// inheritsCallers: clients go on sending to a pod's address, from the same ports, when another pod
// has it that no one may talk to.
func (w *world) inheritsCallers() {
	w.t.Helper()
	w.policy("nobody", `{podSelector: {matchLabels: {app: heir}}, policyTypes: [Ingress]}`)
	w.start(old)
	to, err := w.Pod(old.place())
	w.must(err)
	var senders []*sender
	callers := []string{remote.place(), local.place(), lab.Outside}
	for _, from := range callers {
		w.reached(from, probe.UDP, netip.AddrPortFrom(to.Addresses[0], 53), probe.FromPort(4242))
		w.reached(from, probe.TCP, netip.AddrPortFrom(to.Addresses[0], 80), probe.FromPort(4243))
		more, _ := w.keepKnocking(from, to.Addresses[0])
		senders = append(senders, more...)
	}
	w.awaitMore(senders)
	if got := w.arrivals(old.place()); got.udp == 0 || got.tcp == 0 {
		w.t.Fatalf("%+v packets have arrived at the first pod", got)
	}
	w.replace(old, heir, func(netip.Addr) {})
	w.awaitMore(senders)
	for _, from := range callers {
		w.stopped(from, probe.UDP, netip.AddrPortFrom(to.Addresses[0], 53))
		w.stopped(from, probe.TCP, netip.AddrPortFrom(to.Addresses[0], 80))
	}
	w.awaitMore(senders)
	if got := w.arrivals(heir.place()); got != (arrivals{}) {
		w.t.Errorf("%+v packets for the last owner of its address arrived at the heir", got)
	}
	// Without the policy they arrive.
	w.must(w.Delete(w.t.Context(), policyManifest("nobody", "{}")))
	w.eventually("packets to arrive that may", func() bool {
		got := w.arrivals(heir.place())
		return got.udp > 0 && got.tcp > 0
	})
	w.end(heir)
}

// inheritsFriends: a pod with the address of one that a receiver on another node admits sends from
// the same ports, in the same connections.
func (w *world) inheritsFriends() {
	w.t.Helper()
	admit := func(apps string) {
		w.policy("admit", fmt.Sprintf(
			`{podSelector: {matchLabels: {app: receiver}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [%s]}]}}]}]}`, apps))
	}
	admit("friend")
	w.start(friend)
	at, err := w.Pod(receiver.place())
	w.must(err)
	to := at.Addresses[0]
	w.stopped(remote.place(), probe.TCP, netip.AddrPortFrom(to, 80))
	w.reached(friend.place(), probe.UDP, netip.AddrPortFrom(to, 53), probe.FromPort(4242))
	w.reached(friend.place(), probe.TCP, netip.AddrPortFrom(to, 80), probe.FromPort(4243))
	before, hangUp := w.keepKnocking(friend.place(), to)
	w.awaitMore(before)
	hangUp() // as the kernel does for a process that ends
	w.replace(friend, stranger, func(addr netip.Addr) {
		family := "ip6"
		if addr.Is4() {
			family = "ip"
		}
		w.nft(receiver.place(), "add", "table", "inet", "count")
		w.nft(receiver.place(), "add", "chain", "inet", "count", "in",
			"{ type filter hook prerouting priority -300; }")
		w.nft(receiver.place(), "add", "rule", "inet", "count", "in",
			fmt.Sprintf("%s saddr %s counter", family, addr))
	})
	senders := w.knockOn(stranger.place(), to)
	w.awaitMore(senders)
	w.stopped(stranger.place(), probe.UDP, netip.AddrPortFrom(to, 53))
	w.stopped(stranger.place(), probe.TCP, netip.AddrPortFrom(to, 80))
	w.awaitMore(senders)
	w.reached(ally.place(), probe.TCP, netip.AddrPortFrom(to, 80))
	if n := w.counted(receiver.place()); n > 0 {
		w.t.Errorf("%d packets of a stranger with a friend's address arrived", n)
	}
	admit("friend, stranger")
	w.eventually("packets to arrive that may", func() bool {
		return w.counted(receiver.place()) > 0
	})
	w.end(stranger)
}

// knockOn is keepKnocking without a connection of its own: where it may not connect.
func (w *world) knockOn(place string, to netip.Addr) []*sender {
	w.t.Helper()
	p, err := w.Pod(place)
	w.must(err)
	port := func(n uint16) netip.AddrPort { return netip.AddrPortFrom(p.Addresses[0], n) }
	segment := func(from uint16, flags probe.TCPFlags) func() {
		return func() { _ = probe.SendTCP(port(from), netip.AddrPortFrom(to, 80), flags, 1, 1) }
	}
	return []*sender{
		w.keepSending("datagrams of "+place, place, func() {
			_ = probe.SendUDP(port(4242), netip.AddrPortFrom(to, 53))
		}),
		w.keepSending("segments of "+place, place, segment(4243, probe.ACK|probe.PSH)),
		w.keepSending("connections of "+place, place, segment(4243, probe.SYN)),
		w.keepSending("segments of the last owner's connection of "+place, place,
			segment(4244, probe.ACK|probe.PSH)),
	}
}

// counted is what the counter in a pod has counted.
func (w *world) counted(place string) int {
	w.t.Helper()
	listing, err := w.Nft(w.t.Context(), place, "list", "table", "inet", "count")
	w.must(err)
	match := countedPackets.FindStringSubmatch(listing)
	if match == nil {
		w.t.Fatalf("no counter in %s:\n%s", place, listing)
	}
	var n int
	_, err = fmt.Sscan(match[1], &n)
	w.must(err)
	return n
}

// command runs a program in a place and returns what it printed.
func (w *world) command(place, program string, args ...string) string {
	w.t.Helper()
	var out []byte
	w.must(w.Do(place, func() (err error) {
		out, err = exec.CommandContext(w.t.Context(), program, args...).Output()
		return err
	}))
	return string(out)
}
