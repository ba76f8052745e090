package nflog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/test/stretch"
	"github.com/sluice-net/sluice/test/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const group = 7

// world is a node between a pod and a host, and the records of its group.
type world struct {
	node      *testnet.Node
	pod, host *testnet.Host
	records   chan Record
}

func newWorld(t *testing.T, rules string) *world {
	t.Helper()
	w := &world{node: testnet.NewNode(t), records: make(chan Record, 1000)}
	w.pod = w.node.Pod("dev/web", netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"))
	w.host = w.node.Outside("out", netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("2001:db8::1"))
	w.node.NftInput("table inet t { chain forward { type filter hook forward priority 0; " + rules +
		"\n}\n}\n")
	return w
}

// read collects the records from now on, until the test ends.
func (w *world) read(t *testing.T) {
	t.Helper()
	r, err := Open(Options{Group: group, NetNS: w.node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx, func(r Record) { w.records <- r }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, r.Close()); err != nil {
			t.Error(err)
		}
	})
}

func (w *world) next(t *testing.T) Record {
	t.Helper()
	select {
	case r := <-w.records:
		return r
	case <-time.After(stretch.By(20 * time.Second)):
		t.Fatal("no record came")
	}
	return Record{}
}

func (w *world) addrs(family int) (pod, host netip.Addr) {
	if family == 4 {
		return w.pod.Addr4(), w.host.Addr4()
	}
	return w.pod.Addr6(), w.host.Addr6()
}

// TestReader: what the kernel logs of real packets is read, in both families and directions.
func TestReader(t *testing.T) {
	t.Parallel()
	w := newWorld(t,
		fmt.Sprintf(`meta l4proto { tcp, udp } th dport 80 log prefix "told " group %d`, group))
	w.read(t)
	for _, family := range []int{4, 6} {
		pod, host := w.addrs(family)
		for _, tc := range []struct {
			send     func() error
			protocol uint8
			out      bool
		}{
			{func() error {
				return w.pod.SendTCP(netip.AddrPortFrom(pod, 1234), netip.AddrPortFrom(host, 80),
					testnet.SYN, 1, 0)
			}, 6, true},
			{func() error {
				return w.host.SendUDP(netip.AddrPortFrom(host, 1234), netip.AddrPortFrom(pod, 80))
			}, 17, false},
		} {
			if err := tc.send(); err != nil {
				t.Fatal(err)
			}
			got := w.next(t)
			src, dst, iface := host, pod, got.Out
			if tc.out {
				src, dst, iface = pod, host, got.In
			}
			want := Record{
				Packet: Packet{Source: src, Destination: dst, Protocol: tc.protocol,
					SourcePort: 1234, DestinationPort: 80},
				Prefix: "told ", In: got.In, Out: got.Out,
			}
			if got != want {
				t.Errorf("IPv%d: got %+v, want %+v", family, got, want)
			}
			if name := w.interfaceName(t, iface); name != w.pod.Interface() {
				t.Errorf("IPv%d: the pod's end is %s, want %s", family, name, w.pod.Interface())
			}
		}
	}
}

func (w *world) interfaceName(t *testing.T, index int) (name string) {
	t.Helper()
	if err := w.node.Do(func() error {
		i, err := net.InterfaceByIndex(index)
		if err == nil {
			name = i.Name
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFragmentsAreRead: the parts of a datagram that come after the first have no ports. A rule
// without ports before defragmentation sees them.
func TestFragmentsAreRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fmt.Sprintf(`meta nfproto ipv4 meta l4proto udp log group %d`, group))
	w.read(t)
	if err := w.pod.Do(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(w.host.Addr4(), 80).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(make([]byte, 3000))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	later := 0
	for range 3 {
		r := w.next(t)
		if r.Protocol != 17 || r.Fragment == (r.DestinationPort == 80) {
			t.Errorf("got %+v", r)
		}
		if r.Fragment {
			later++
		}
	}
	if later != 2 {
		t.Errorf("of three fragments, %d come after the first", later)
	}
}

// TestGroupIsTaken: a group has one reader, and is free when that is closed.
func TestGroupIsTaken(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	first, err := Open(Options{Group: group, NetNS: node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Open(Options{Group: group, NetNS: node.NSFd()}); !errors.Is(err, errTaken) {
		t.Errorf("a second reader: %v, %v", second, err)
	}
	if err := Available(Options{Group: group, NetNS: node.NSFd()}); err != nil {
		t.Errorf("a group that is taken: %v", err)
	}
	if err := Available(Options{Group: group + 1, NetNS: node.NSFd()}); err != nil {
		t.Errorf("a group that is free: %v", err)
	}
	other, err := Open(Options{Group: group + 1, NetNS: node.NSFd()})
	if err != nil {
		t.Errorf("another group: %v", err)
	} else if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(Options{Group: group, NetNS: node.NSFd()})
	if err != nil {
		t.Fatalf("once it is closed: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestLostRecordsAreCounted: what doesn't fit the socket's buffer is lost, and the next record says
// how much.
func TestLostRecordsAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fmt.Sprintf(`meta nfproto ipv4 meta l4proto udp log group %d drop`, group))
	r, err := Open(Options{Group: group, NetNS: w.node.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const sent = 5000
	src, dst := netip.AddrPortFrom(w.pod.Addr4(), 1234), netip.AddrPortFrom(w.host.Addr4(), 80)
	for range sent {
		if err := w.pod.SendUDP(src, dst); err != nil {
			t.Fatal(err)
		}
	}
	// Once the buffer was full, the kernel drops until it is empty. So markers follow, numbered by
	// their source port, until one comes through.
	ctx, cancel := context.WithTimeout(context.Background(), stretch.By(time.Minute))
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := uint16(1); ctx.Err() == nil; n++ {
			if err := w.pod.SendUDP(netip.AddrPortFrom(w.pod.Addr4(), n),
				netip.AddrPortFrom(w.host.Addr4(), 81)); err != nil {
				t.Error(err)
			}
			<-tick.C
		}
	}()
	defer func() { <-done }()
	defer cancel()
	total, records, markers := 0, 0, 0
	if err := r.Run(ctx, func(r Record) {
		if markers > 0 {
			return
		}
		records++
		total += 1 + int(r.Lost)
		if r.DestinationPort == 81 {
			markers = int(r.SourcePort)
			cancel()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if markers == 0 || records >= sent || total != sent+markers {
		t.Errorf("%d records and %d in all, of %d and %d markers: nothing was lost, or not counted",
			records, total, sent, markers)
	}
}
