package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/test/needroot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	openPort   = 80
	closedPort = 81
)

var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

// alone runs f in a namespace of its own where openPort is served in every protocol.
func alone(t *testing.T, f func()) {
	t.Helper()
	needroot.Skip(t)
	space, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = space.Close() }()
	err = space.Do(func(ns.NetNS) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		tcp, err := ServeTCP("me", openPort)
		if err != nil {
			return err
		}
		defer tcp.Close()
		udp, err := ServeUDP("me", openPort)
		if err != nil {
			return err
		}
		defer udp.Close()
		sctp, err := ListenSCTP("me")
		if err != nil {
			return err
		}
		defer sctp.Close()
		if err := sctp.Open(openPort); err != nil {
			t.Fatal(err)
		}
		f()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConnect(t *testing.T) {
	t.Parallel()
	alone(t, func() {
		for _, addr := range loopback {
			for _, proto := range []Protocol{TCP, UDP, SCTP} {
				source := netip.AddrPortFrom(addr, 4242)
				got := Reach(proto, netip.AddrPortFrom(addr, openPort), FromAddr(addr),
					FromPort(4242))
				if want := "me " + source.String(); got.Reply != want {
					t.Errorf("%s to %s: got %s, want %q", proto, addr, got, want)
				}
				if got := Connect(proto, netip.AddrPortFrom(addr, closedPort)); !errors.Is(got.Err,
					ErrReset) {
					t.Errorf("%s to a closed port of %s: got %s, want a reset", proto, addr, got)
				}
			}
			if got := Reach(ICMP, netip.AddrPortFrom(addr, 0)); got.Reply != addr.String() {
				t.Errorf("echo to %s: got %s", addr, got)
			}
		}
		if got := Connect(TCP, netip.MustParseAddrPort("192.0.2.1:80")); !errors.Is(got.Err,
			ErrUnreachable) {
			t.Errorf("without a route: got %s, want unreachable", got)
		}
		if got := Connect("ipx", netip.AddrPortFrom(loopback[0], openPort)); got.OK {
			t.Errorf("an unknown protocol: got %s", got)
		}
	})
}

// The client's word comes after the handshake; a server that never answers is neither a connection
// nor a denial.
func TestHandshakeWithoutAnswer(t *testing.T) {
	t.Parallel()
	alone(t, func() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		got := Connect(TCP, addrPort(listener.Addr()), WithTimeout(100*time.Millisecond))
		if !errors.Is(got.Err, ErrNoReply) {
			t.Errorf("got %s, want no reply", got)
		}
	})
}

func TestServeTCPSpeaksHTTP(t *testing.T) {
	t.Parallel()
	alone(t, func() {
		// A transport dials from another thread, in another namespace: write the request by hand.
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", openPort))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://pod/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := request.Write(conn); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		want := "me " + conn.LocalAddr().String() + "\n"
		if err != nil || response.StatusCode != http.StatusOK || string(body) != want {
			t.Errorf("got %s %q (%v), want %q", response.Status, body, err, want)
		}
	})
}

func TestFlow(t *testing.T) {
	t.Parallel()
	alone(t, func() {
		for _, addr := range loopback {
			for _, proto := range []Protocol{TCP, UDP} {
				flow, err := Open(proto, netip.AddrPortFrom(addr, openPort))
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if err := flow.Echo(); err != nil {
						t.Errorf("%s to %s: %v", proto, addr, err)
					}
				}
				flow.Close()
				if err := flow.Echo(); err == nil {
					t.Errorf("%s: an echo on a closed flow worked", proto)
				}
			}
		}
		if _, err := Open(TCP, netip.AddrPortFrom(loopback[0], closedPort),
			Within(0)); !errors.Is(err, ErrReset) {
			t.Errorf("a flow to a closed port: got %v, want a reset", err)
		}
		if _, err := Open(SCTP, netip.AddrPortFrom(loopback[0], openPort)); err == nil {
			t.Error("a flow over SCTP was opened")
		}
	})
}

func TestFloodIntoSink(t *testing.T) {
	t.Parallel()
	alone(t, func() {
		sink, err := NewSink(9000)
		if err != nil {
			t.Fatal(err)
		}
		defer sink.Close()
		for _, addr := range loopback {
			before := sink.Received()
			flood, err := StartFlood(netip.AddrPortFrom(addr, 9000))
			if err != nil {
				t.Fatal(err)
			}
			tick := time.NewTicker(time.Millisecond)
			for deadline := time.Now().Add(5 * time.Second); sink.Received() < before+100 &&
				time.Now().Before(deadline); {
				<-tick.C
			}
			tick.Stop()
			sent, err := flood.Stop()
			if got := sink.Received() - before; err != nil || got < 100 || got > sent {
				t.Errorf("to %s: sent %d, received %d (%v)", addr, sent, got, err)
			}
		}
	})
}
