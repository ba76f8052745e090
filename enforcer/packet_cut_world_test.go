package enforcer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/internal/processortime"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/stretch"
)

// cutWorld is a packetworld.World whose table an Enforcer writes, with a Cutter.
type cutWorld struct {
	*packetworld.World
	e *Enforcer
	c *Cutter
	// sweeps counts looks through the connections.
	sweeps atomic.Int32
	spent  atomic.Int64 // CPU time of looks, in ns
	port   atomic.Uint32
}

const udpTimeout = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"

// newCutWorld wires everything, lets before prepare it, and starts Enforcer and Cutter.
func newCutWorld(t *testing.T, cfg ruleset.Config, opts CutterOptions,
	before func(w *cutWorld)) *cutWorld {
	t.Helper()
	w := &cutWorld{World: packetworld.New(t, cfg)}
	// Kept for long, so that on a busy machine no connection is forgotten before it is cut.
	if err := w.Node.Do(func() error {
		return errors.Join(os.WriteFile(udpTimeout, []byte("600"), 0),
			os.WriteFile(udpTimeout+"_stream", []byte("600"), 0))
	}); err != nil {
		t.Fatal(err)
	}
	w.e = New(w.Table, &Model{Cluster: w.Cluster, render: w.Render}, Options{Log: logr.Discard()})
	opts.do = func(f func() error) error {
		return w.Node.Do(func() error {
			before := processortime.Used(unix.RUSAGE_THREAD)
			err := f()
			w.spent.Add(int64(processortime.Used(unix.RUSAGE_THREAD) - before))
			w.sweeps.Add(1)
			return err
		})
	}
	w.c = NewCutter(w.e, opts)
	if before != nil {
		before(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	for _, run := range []func(context.Context) error{w.e.Run, w.c.Run} {
		go func() { done <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	w.commit()
	return w
}

// commit waits until the kernel has all updates of the Enforcer.
func (w *cutWorld) commit() {
	w.T.Helper()
	ctx, cancel := inTime(packetworld.Patience)
	defer cancel()
	if err := w.e.await(ctx, func() error { return nil }); err != nil {
		w.T.Fatal(err)
	}
}

// change updates the Enforcer, and waits until that is committed.
func (w *cutWorld) change(f func(m *Model)) {
	w.T.Helper()
	w.e.Update(f)
	w.commit()
}

// policies adds policies, given as spec by namespace/name; without a spec, it deletes them.
func (w *cutWorld) policies(specs map[string]string) {
	w.T.Helper()
	w.change(func(c *Model) {
		for key, spec := range specs {
			np, err := cases.RenderPolicy(key, spec, cases.Addr)
			if err != nil {
				w.T.Fatal(err)
			}
			if spec == "" {
				c.DeletePolicy(policy.Key{Namespace: np.Namespace, Name: np.Name})
			} else {
				c.SetPolicy(policy.Parse(np))
			}
		}
	})
}

// relabel gives a pod of the world other labels.
func (w *cutWorld) relabel(name string, labels map[string]string) {
	w.T.Helper()
	w.change(func(c *Model) {
		for _, in := range cases.Pods() {
			if in.Namespace+"/"+in.Name == name {
				in.Labels = labels
				c.SetPod(policy.PodFrom(in))
			}
		}
	})
}

// cutPatience is how long something may take on a busy machine.
var cutPatience = stretch.By(20 * time.Second)

func (w *cutWorld) eventually(what string, is func() bool) {
	w.T.Helper()
	tick := time.NewTicker(stretch.By(2 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(cutPatience); !is(); <-tick.C {
		if time.Now().After(deadline) {
			w.T.Fatalf("not in time: %s", what)
		}
	}
}

// entries are the node's connections that match.
func (w *cutWorld) entries(match func(e *conntrack.Entry) bool) (out []conntrack.Entry) {
	w.T.Helper()
	return w.find([]conntrack.Query{{}}, match)
}

func (w *cutWorld) find(queries []conntrack.Query,
	match func(e *conntrack.Entry) bool) (out []conntrack.Entry) {
	w.T.Helper()
	err := w.Node.Do(func() error {
		table, err := conntrack.Open()
		if err != nil {
			return err
		}
		defer table.Close()
		if match == nil {
			match = func(*conntrack.Entry) bool { return true }
		}
		out, err = table.Find(queries, match)
		return err
	})
	if err != nil {
		w.T.Fatal(err)
	}
	return out
}

// connection is a lasting one of the test's own, of which the test is both ends.
type connection struct {
	w              *cutWorld
	what           string
	proto          uint8
	source         netip.AddrPort // of the client
	client, server end
}

// end is a socket; peer is whom a UDP server has heard of.
type end struct {
	net.Conn
	peer net.Addr
}

func (e end) send(data []byte) error {
	if packets, ok := e.Conn.(*net.UDPConn); ok && e.peer != nil {
		_, err := packets.WriteTo(data, e.peer)
		return err
	}
	_, err := e.Write(data)
	return err
}

// open connects from a host to a port of another and has one message each way. The address is the
// server's, unless via says through which it is met.
func (w *cutWorld) open(proto uint8, from, to string, family int, port uint16,
	via netip.AddrPort) *connection {
	w.T.Helper()
	return w.openFrom(netip.Addr{}, proto, from, to, family, port, via)
}

// openFrom is open from an address of the client's.
func (w *cutWorld) openFrom(local netip.Addr, proto uint8, from, to string, family int, port uint16,
	via netip.AddrPort) *connection {
	w.T.Helper()
	c := &connection{w: w, proto: proto,
		what: fmt.Sprintf("%s > %s %d, protocol %d, IPv%d", from, to, port, proto, family)}
	at := netip.AddrPortFrom(w.Addr(to, family), port)
	if !via.IsValid() {
		via = at
	}
	var listener net.Listener
	err := w.Hosts[to].Do(func() (err error) {
		if proto == policy.ProtocolUDP {
			c.server.Conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			return err
		}
		quiet := net.ListenConfig{KeepAlive: -1} // only the test sends
		listener, err = quiet.Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		w.T.Fatal(err)
	}
	err = w.Hosts[from].Do(func() (err error) {
		dialer, network := net.Dialer{Timeout: cutPatience, KeepAlive: -1}, "tcp"
		if proto == policy.ProtocolUDP {
			network = "udp"
		}
		switch {
		case local.IsValid() && network == "tcp":
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
		case local.IsValid():
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
		}
		c.client.Conn, err = dialer.Dial(network, via.String())
		return err
	})
	if err != nil {
		w.T.Fatalf("%s: %v", c.what, err)
	}
	c.source = netip.MustParseAddrPort(c.client.LocalAddr().String())
	if listener != nil {
		if c.server.Conn, err = listener.Accept(); err != nil {
			w.T.Fatal(err)
		}
		_ = listener.Close()
	} else {
		if err := c.client.send([]byte("hello")); err != nil {
			w.T.Fatal(err)
		}
		_ = c.server.SetReadDeadline(time.Now().Add(cutPatience))
		_, c.server.peer, err = c.server.Conn.(*net.UDPConn).ReadFrom(make([]byte, 64))
		if err != nil {
			w.T.Fatalf("%s: %v", c.what, err)
		}
	}
	w.T.Cleanup(func() { _, _ = c.client.Close(), c.server.Close() })
	c.lives()
	return c
}

// pass sends a message from one end and reports whether it reaches the other.
func pass(from, to end, d time.Duration) error {
	if err := from.send([]byte("x")); err != nil {
		return err
	}
	_ = to.SetReadDeadline(time.Now().Add(d))
	_, err := to.Read(make([]byte, 1))
	return err
}

// lives demands that messages pass both ways, the first time.
func (c *connection) lives() {
	c.w.T.Helper()
	err := errors.Join(pass(c.client, c.server, cutPatience), pass(c.server, c.client, cutPatience))
	if err != nil {
		c.w.T.Errorf("%s: should live, but %v", c.what, err)
	}
}

// isCut reports whether the kernel has the connection marked.
func (c *connection) isCut() bool {
	found := c.w.find([]conntrack.Query{conntrack.OpenedBy(c.source.Addr())},
		func(e *conntrack.Entry) bool {
			return e.Orig.Proto == c.proto && e.Orig.SrcPort == c.source.Port() &&
				e.Orig.Src == c.source.Addr().Unmap()
		})
	return len(found) == 1 && found[0].Labels.Has(packetworld.CutBit)
}

// awaitCut waits until it is marked.
func (c *connection) awaitCut() {
	c.w.T.Helper()
	c.w.eventually(c.what+" is cut", c.isCut)
}

// silence is how long nothing must come where nothing may.
const silence = 50 * time.Millisecond

// dead demands that what the end sends doesn't arrive, and that the end gets a reset if the
// protocol has any.
func (c *connection) dead(from, to end) {
	c.w.T.Helper()
	err := pass(from, to, silence)
	if err == nil {
		c.w.T.Errorf("%s: a message passed", c.what)
	}
	var sending *net.OpError
	if errors.As(err, &sending) && sending.Op == "write" && errors.Is(err, syscall.ECONNRESET) {
		return // the reset came before, in answer to an acknowledgement that was due
	}
	if c.proto == policy.ProtocolUDP {
		return
	}
	_ = from.SetReadDeadline(time.Now().Add(cutPatience))
	if _, err := from.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		c.w.T.Fatalf("%s: the sender should be reset, got %v", c.what, err)
	}
}

// freePort returns a port that no other connection of the test has, from the first one on.
func (w *cutWorld) freePort(first uint16) uint16 { return first + uint16(w.port.Add(1)) }

var cutProtocols = []uint8{policy.ProtocolTCP, policy.ProtocolUDP}

// openAll opens the flows, "from > to", in both families and over both protocols.
func (w *cutWorld) openAll(port uint16, flows ...[2]string) (out []*connection) {
	w.T.Helper()
	for _, f := range flows {
		for _, family := range packetworld.BothFamilies {
			for _, proto := range cutProtocols {
				out = append(out,
					w.open(proto, f[0], f[1], family, w.freePort(port), netip.AddrPort{}))
			}
		}
	}
	return out
}
