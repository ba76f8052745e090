package security

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// The rules that drop what isn't from where it says.
const (
	notThePods   = "a pod, but not its address"
	notFromThere = "a pod's address, but not from there"
)

// guarded has pods that only app=web may talk to, and pods that are open to all.
var (
	web   = pod{name: "web", node: "node1", app: "web"}
	other = pod{name: "other", node: "node2", app: "web"}
	evil  = pod{name: "evil", node: "node1", app: "evil"}
	near  = pod{name: "near", node: "node1", app: "db"}
	far   = pod{name: "far", node: "node2", app: "db"}
	free  = pod{name: "free", node: "node2", app: "free"}
)

const admitWeb = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`

// forgeries is how many packets each one who poses sends.
const forgeries = 20

// sinkPort is the first of the ports that count.
const sinkPort = 7000

func (w *world) startGuarded() {
	w.t.Helper()
	w.policy("guard", admitWeb)
	w.start(web, other, evil, near, far, free)
	for _, family := range families {
		for _, guarded := range []pod{near, far} {
			w.allows(web, guarded, family)
			w.denies(evil, guarded, family)
		}
	}
}

// allows waits until a datagram of one pod arrives at the other.
func (w *world) allows(from, to pod, family int) {
	w.t.Helper()
	sink := w.sink(to.place(), sinkPort-1)
	defer sink.Close()
	packet := datagram(w.at(from.place(), family, 4242), w.at(to.place(), family, sinkPort-1),
		[]byte("control"))
	w.eventually(fmt.Sprintf("%s to reach %s over IPv%d", from.name, to.name, family), func() bool {
		w.send(from.place(), packet)
		return sink.Received() > 0
	})
}

func (w *world) denies(from, to pod, family int) {
	w.t.Helper()
	w.stopped(from.place(), probe.UDP, w.at(to.place(), family, sinkPort-2))
}

// repeated is n times the same packet.
func repeated(packet []byte, n int) [][]byte {
	var packets [][]byte
	for range n {
		packets = append(packets, packet)
	}
	return packets
}

// TestOrigin: no one is taken for another.
func TestOrigin(t *testing.T) { //nolint:tparallel // the parts take turns on one lab
	t.Parallel()
	w := newWorld(t, lab.Options{})
	w.startGuarded()
	t.Run("a pod poses", func(t *testing.T) {
		w := &world{w.Lab, t}
		for i, victim := range []pod{near, far, free} {
			w.posesAs(evil.place(), "node1", notThePods, victim, uint16(sinkPort+i),
				web.place(), other.place(), near.place(), "node1", "node2", lab.Outside)
		}
	})
	t.Run("a host of the underlay poses", func(t *testing.T) {
		w := &world{w.Lab, t}
		for i, victim := range []pod{far, free} {
			w.posesAs(lab.Outside, "node2", notFromThere, victim, uint16(sinkPort+10+i),
				web.place(), other.place(), victim.place())
		}
	})
}

// posesAs sends datagrams from one place with the addresses of others, none of which may arrive,
// and one without forgery, to a pod that is open. The rule with this comment on the node that they
// come to drops them.
func (w *world) posesAs(liar, node, comment string, victim pod, port uint16, sources ...string) {
	w.t.Helper()
	sink := w.sink(victim.place(), port)
	for _, family := range families {
		dst := w.at(victim.place(), family, port)
		for _, source := range sources {
			forged := datagram(w.at(source, family, 4242), dst, []byte("forged"))
			w.drops(node, comment, forgeries, func() {
				w.send(liar, repeated(forged, forgeries)...)
			})
		}
	}
	if n := sink.Received(); n > 0 {
		w.t.Errorf("%d datagrams of %s arrived at %s as somebody else's", n, liar, victim.name)
	}
	for _, family := range families {
		honest := victim
		if victim.app == "db" { // to which the liar may not talk as itself
			honest = free
		}
		counter := w.sink(honest.place(), port+100)
		src := netip.AddrPortFrom(w.addr(liar, family), 4242)
		w.send(liar, datagram(src, w.at(honest.place(), family, port+100), []byte("honest")))
		w.eventually(fmt.Sprintf("the honest datagram of %s over IPv%d", liar, family),
			func() bool { return counter.Received() > 0 })
		counter.Close()
	}
}
