package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/testnet"
)

func TestConnect(t *testing.T) {
	t.Parallel()
	node, client, server := twoPods(t)
	serving := start(t, server, "serve", "--name", "web", "--serve", "tcp/80", "--serve", "udp/80",
		"--serve", "sctp/80", "--report-peers").awaitServing()
	node.NftInput(strings.ReplaceAll(dropPort80, "80", "4242"))

	var targets []string
	var want []testprogram.Kind
	for _, addr := range serverAddrs {
		for _, protocol := range []string{"tcp", "udp", "sctp", "icmp"} {
			targets = append(targets, testprogram.NewTarget(protocol, addr, 80).String())
			want = append(want, testprogram.OK)
			if protocol != "icmp" {
				targets = append(targets, testprogram.NewTarget(protocol, addr, 81).String(),
					testprogram.NewTarget(protocol, addr, 4242).String())
				want = append(want, testprogram.Reset, testprogram.Timeout)
			}
		}
	}
	targets = append(targets, "tcp://10.99.0.1:80", "tcp://no.such.name.invalid:80")
	want = append(want, testprogram.Unreachable, testprogram.NoName)

	results := output[[]testprogram.Result](t, client,
		append([]string{"connect", "--timeout", "2s"}, targets...)...)
	if len(results) != len(targets) {
		t.Fatalf("got %d results of %d targets", len(results), len(targets))
	}
	for i, result := range results {
		if result.Target != targets[i] || result.Kind != want[i] ||
			result.OK != (want[i] == testprogram.OK) || result.OK != (result.Error == "") {
			t.Errorf("%s: got %+v, want %s", targets[i], result, want[i])
		}
		name, from, _ := strings.Cut(result.Reply, " ")
		if result.OK && !strings.HasPrefix(result.Target, "icmp") {
			peer, err := netip.ParseAddrPort(from)
			if name != "web" || err != nil || !slices.Contains(clientAddrs, peer.Addr()) {
				t.Errorf("%s: got the reply %q", result.Target, result.Reply)
			}
		}
	}

	var peers []string
	for _, report := range serving.rest() {
		if report.Peer != nil && !slices.Contains(peers,
			fmt.Sprint(report.Peer.Protocol, report.Peer.Port, report.Peer.From.Addr())) {
			peers = append(peers,
				fmt.Sprint(report.Peer.Protocol, report.Peer.Port, report.Peer.From.Addr()))
		}
	}
	slices.Sort(peers)
	diff := cmp.Diff([]string{"tcp80 10.0.0.2", "tcp80 fd00::2", "udp80 10.0.0.2",
		"udp80 fd00::2"}, peers)
	if diff != "" {
		t.Errorf("peers with difference %s", diff)
	}
}

func TestServeLingers(t *testing.T) {
	t.Parallel()
	_, client, server := twoPods(t)
	serving := start(t, server, "serve", "--name", "web", "--serve", "tcp/80", "--linger", "3s").
		awaitServing()
	to := netip.AddrPortFrom(server.Addr4(), 80)
	client.MustReach(t, testnet.TCP, to)
	serving.terminate()
	client.MustReach(t, testnet.TCP, to)
	if err := serving.wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	client.MustNotReach(t, testnet.TCP, to)
}

func TestServeHTTP(t *testing.T) {
	t.Parallel()
	_, client, server := twoPods(t)
	start(t, server, "serve", "--name", "web", "--serve", "tcp/80").awaitServing()
	var conn net.Conn
	err := client.Do(func() (err error) {
		conn, err = net.Dial("tcp", "10.0.0.3:80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(context.Context, string,
		string) (net.Conn, error) {
		return conn, nil
	}}
	response, err := (&http.Client{Transport: transport}).Get("http://10.0.0.3/ready")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("got %s", response.Status)
	}
}

func TestNoRawSocket(t *testing.T) {
	t.Parallel()
	_, client, _ := twoPods(t)
	target, err := testprogram.ParseTarget("icmp://10.0.0.3")
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{testprogram.ICMP, testprogram.SCTP} {
		target.Protocol = protocol
		result := testprogram.Result{}
		if err := client.Do(func() error {
			return withoutCapabilities(func() { result = attempt(t.Context(), target, patiently) })
		}); err != nil {
			t.Fatal(err)
		}
		if result.Kind != testprogram.Unsupported || result.Kind.Denied() {
			t.Errorf("without NET_RAW: got %s, want unsupported", result)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	_, client, server := twoPods(t)
	var conn net.PacketConn
	err := server.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", ":53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		answerNames(conn)
	}()
	for _, addr := range serverAddrs {
		got := output[testprogram.Resolved](t, client, "resolve", "--server", addr.String(),
			"web.test.")
		if diff := cmp.Diff([]netip.Addr{netip.MustParseAddr("10.1.2.3"),
			netip.MustParseAddr("fd01::3")}, got.Addresses,
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" ||
			got.Error != "" {
			t.Errorf("error %q, difference %s", got.Error, diff)
		}
	}
	got := output[testprogram.Resolved](t, client, "resolve", "--server", "10.0.0.3",
		"nobody.test.")
	if len(got.Addresses) > 0 || got.Error == "" {
		t.Errorf("got %v (%s) for a name without addresses", got.Addresses, got.Error)
	}
	conn.Close()
	<-done
}

// answerNames answers queries (RFC 1035) for "web.test." with an address, and others with none,
// until conn is closed.
func answerNames(conn net.PacketConn) {
	query := make([]byte, 512)
	for {
		size, from, err := conn.ReadFrom(query)
		if err != nil {
			return
		}
		end := 12 // of the question, which begins behind the header
		for query[end] != 0 {
			end += int(query[end]) + 1
		}
		end += 5
		if size < end {
			continue
		}
		kind := binary.BigEndian.Uint16(query[end-4:])
		answer := slices.Clone(query[:end])
		binary.BigEndian.PutUint16(answer[2:], 0x8180) // a response
		copy(answer[6:12], make([]byte, 6))
		data := netip.MustParseAddr("10.1.2.3").AsSlice()
		if kind == 28 {
			data = netip.MustParseAddr("fd01::3").AsSlice()
		}
		if string(query[12:16]) == "\x03web" {
			answer[7] = 1
			answer = append(answer, 0xc0, 12) // the question's name
			answer = binary.BigEndian.AppendUint16(answer, kind)
			answer = append(answer, 0, 1, 0, 0, 0, 60, 0, byte(len(data)))
			answer = append(answer, data...)
		}
		_, _ = conn.WriteTo(answer, from)
	}
}
