package kill

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

// flow is a connection of UDP and one of TCP, of each family, to a port of server.
type flow struct {
	from string
	port uint16
}

func (f flow) String() string { return fmt.Sprintf("%s > %s port %d", f.from, server, f.port) }

// Of server's policies, tight and loose, both allow always, and none allows never. The second and
// third of never are what a mixture of the two would allow.
var (
	always = []flow{{client1, 80}, {farClient, 80}}
	never  = []flow{{client1, 81}, {other, 80}, {other, 82}, {lab.Outside, 81}}
)

// watch tries all of never, and uses all of always if these are to go on, until stop. It fails the
// test when one of never connects, or one of always breaks.
func (w *world) watch(goOn bool) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	for _, family := range []int{4, 6} {
		for _, f := range never {
			target := w.target(server, family, f.port)
			all.Go(func() { w.neverConnects(ctx, f, target) })
			sender, err := w.dialUDP(f.from, target)
			must(w.t, err)
			all.Go(func() { w.neverAnswers(ctx, f, sender) })
		}
		for _, f := range always {
			if !goOn {
				break
			}
			target := w.target(server, family, f.port)
			for _, protocol := range []probe.Protocol{probe.TCP, probe.UDP} {
				// Longer than an agent is away in the middle of a change of the network.
				open, err := w.OpenFlow(f.from, protocol, target, probe.WithTimeout(settleTime/2),
					probe.Within(settleTime))
				must(w.t, err)
				all.Go(func() { w.goesOn(ctx, f, protocol, open) })
			}
		}
	}
	return func() { cancel(); all.Wait() }
}

// pace is between two packets of a denied flow, and two of an allowed one: many, and still little
// load.
const pace = 2 * time.Millisecond

// neverConnects tries TCP.
func (w *world) neverConnects(ctx context.Context, f flow, target netip.AddrPort) {
	for ctx.Err() == nil {
		if r := w.Connect(ctx, f.from, probe.TCP, target); r.OK {
			w.t.Errorf("%s (TCP to %s) is denied always, but connected", f, target)
			return
		}
	}
}

func (w *world) dialUDP(from string, target netip.AddrPort) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := w.Do(from, func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
		return err
	})
	return conn, err
}

// neverAnswers sends UDP from one port: a packet that is dropped leaves nothing behind, so each of
// them is a new connection.
func (w *world) neverAnswers(ctx context.Context, f flow, conn *net.UDPConn) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		buf := make([]byte, 512)
		for ctx.Err() == nil {
			n, err := conn.Read(buf)
			if err == nil && ctx.Err() == nil {
				w.t.Errorf("%s (UDP to %s) is denied always, but has an answer: %q", f,
					conn.RemoteAddr(), buf[:n])
				return
			}
		}
	})
	for ctx.Err() == nil {
		_, _ = conn.Write([]byte("let me in\n")) // that it can't be sent is fine
		<-tick.C
	}
}

// goesOn uses a connection.
func (w *world) goesOn(ctx context.Context, f flow, protocol probe.Protocol, open *probe.Flow) {
	defer open.Close()
	tick := time.NewTicker(5 * pace)
	defer tick.Stop()
	for ; ctx.Err() == nil; <-tick.C {
		if err := open.Echo(); err != nil && ctx.Err() == nil {
			w.t.Errorf("%s (%s from %s) is allowed always, but broke: %v", f, protocol,
				open.LocalAddr(), err)
			return
		}
	}
}

// check tries new connections once: those of always work, those of never don't, and those of
// changing do as open says.
func (w *world) check(when string, changing []flow, open bool) {
	w.t.Helper()
	w.tryAll(when, slices.Concat(always, conditional(changing, open)),
		slices.Concat(never, conditional(changing, !open)))
}

// checkSome is the same without changing, and without those flows that are to be left out.
func (w *world) checkSome(when string, leftOut func(flow) bool) {
	w.t.Helper()
	w.tryAll(when, slices.DeleteFunc(slices.Clone(always), leftOut),
		slices.DeleteFunc(slices.Clone(never), leftOut))
}

func conditional(flows []flow, yes bool) []flow {
	if yes {
		return flows
	}
	return nil
}

func (w *world) tryAll(when string, connect, fail []flow) {
	w.t.Helper()
	var all sync.WaitGroup
	try := func(f flow, connects bool) {
		for _, family := range []int{4, 6} {
			target := w.target(server, family, f.port)
			for _, protocol := range []probe.Protocol{probe.TCP, probe.UDP} {
				all.Go(func() {
					var r probe.Result
					if connects {
						r = w.Reach(w.t.Context(), f.from, protocol, target,
							probe.Within(settleTime/2))
					} else {
						r = w.Connect(w.t.Context(), f.from, protocol, target)
					}
					if r.OK != connects {
						w.t.Errorf("%s: %s (%s to %s): want a connection: %v, got %s", when, f,
							protocol, target, connects, r)
					}
				})
			}
		}
	}
	for _, f := range connect {
		try(f, true)
	}
	for _, f := range fail {
		try(f, false)
	}
	all.Wait()
}
