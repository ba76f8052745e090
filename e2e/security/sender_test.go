package security

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/test/probe"
)

// sendEvery is how often a sender sends.
const sendEvery = 10 * time.Millisecond

// sender sends packets from one port to one place, again and again, also while they are lost.
type sender struct {
	name string
	sent atomic.Int64
}

// keepSending calls send in the namespace of a place until the test ends.
func (w *world) keepSending(name, place string, send func()) *sender {
	w.t.Helper()
	s := &sender{name: name}
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		err := w.Do(place, func() error {
			tick := time.NewTicker(sendEvery)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return nil
				case <-tick.C:
					send()
					s.sent.Add(1)
				}
			}
		})
		if err != nil {
			w.t.Errorf("sending %s: %v", name, err)
		}
	})
	w.t.Cleanup(func() {
		close(done)
		running.Wait()
	})
	return s
}

// keepKnocking sends, from fixed ports of a place, datagrams, TCP segments as of a connection and
// as of new ones, and keeps a real connection busy, until hangUp ends it.
func (w *world) keepKnocking(place string, to netip.Addr) (all []*sender, hangUp func()) {
	w.t.Helper()
	family := 6
	if to.Is4() {
		family = 4
	}
	from := w.addr(place, family)
	udp := [2]netip.AddrPort{netip.AddrPortFrom(from, 4242), netip.AddrPortFrom(to, 53)}
	tcp := [2]netip.AddrPort{netip.AddrPortFrom(from, 4243), netip.AddrPortFrom(to, 80)}
	flow, err := w.OpenFlow(place, probe.TCP, tcp[1], probe.FromPort(4244),
		probe.WithTimeout(sendEvery))
	w.must(err)
	w.t.Cleanup(flow.Close)
	name := func(what string) string { return fmt.Sprintf("%s from %s to %s", what, place, to) }
	return []*sender{
		w.keepSending(name("datagrams"), place, func() { _ = probe.SendUDP(udp[0], udp[1]) }),
		w.keepSending(name("segments"), place, func() {
			_ = probe.SendTCP(tcp[0], tcp[1], probe.ACK|probe.PSH, 1, 1)
		}),
		w.keepSending(name("connections"), place, func() {
			_ = probe.SendTCP(tcp[0], tcp[1], probe.SYN, 1, 0)
		}),
		w.keepSending(name("a connection's lines"), place, func() { _ = flow.Echo() }),
	}, flow.Close
}

// awaitMore waits until every sender has sent some more.
func (w *world) awaitMore(senders []*sender) {
	w.t.Helper()
	const more = 50
	enough := map[*sender]int64{}
	for _, s := range senders {
		enough[s] = s.sent.Load() + more
	}
	for s, n := range enough {
		w.eventually("more "+s.name, func() bool { return s.sent.Load() >= n })
	}
}

// arrivals are the packets that a pod has got since its network namespace was made, of both
// families and to any port.
type arrivals struct{ udp, tcp int }

func (w *world) arrivals(place string) (got arrivals) {
	w.t.Helper()
	w.must(w.Do(place, func() error {
		all, err := statistics()
		got = arrivals{
			udp: all["Udp:InDatagrams"] + all["Udp:NoPorts"] + all["Udp6InDatagrams"] +
				all["Udp6NoPorts"],
			tcp: all["Tcp:InSegs"],
		}
		return err
	}))
	return got
}

// statistics are what the kernel has counted in the current network namespace: of IPv4, and of TCP,
// as "Tcp:InSegs", of IPv6 as "Udp6InDatagrams".
func statistics() (map[string]int, error) {
	all := map[string]int{}
	v4, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return nil, err
	}
	var names [][]byte // a line of them stands above the numbers
	for line := range bytes.Lines(v4) {
		fields := bytes.Fields(line)
		if names == nil || !bytes.Equal(names[0], fields[0]) {
			names = slices.Clone(fields)
			continue
		}
		for i, name := range names[1:] {
			n, err := strconv.Atoi(string(fields[i+1]))
			if err != nil {
				return nil, err
			}
			all[string(names[0])+string(name)] = n
		}
	}
	v6, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(v6) {
		var name string
		var n int
		if _, err := fmt.Sscan(string(line), &name, &n); err != nil {
			return nil, err
		}
		all[name] = n
	}
	return all, nil
}
