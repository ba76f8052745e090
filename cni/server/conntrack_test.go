package server

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/testnet"
)

type flow = testnet.Tracked

var plain, natted, track, tracked = testnet.Plain, testnet.Translated, testnet.Track,
	testnet.TrackedNow

func flowTexts(flows []flow) []string {
	var texts []string
	for _, f := range flows {
		texts = append(texts, f.String())
	}
	slices.Sort(texts)
	return texts
}

// in runs f on a thread in the namespace.
func in(t testing.TB, netns ns.NetNS, f func() error) {
	t.Helper()
	if err := netns.Do(func(ns.NetNS) error { return f() }); err != nil {
		t.Fatal(err)
	}
}

const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP

// Whatever the flows and the addresses, those that have one go, and no other.
func TestForgetConnectionsDeletesExactlyThose(t *testing.T) {
	t.Parallel()
	pool4 := cnitest.Addrs("10.1.0.2", "10.1.0.3", "10.1.0.20", "192.0.2.1", "198.51.100.1")
	pool6 := cnitest.Addrs("fd00:1::2", "fd00:1::3", "fd00:1::20", "2001:db8::1", "2001:db8::2")
	netns := cnitest.NewNetNS(t)
	rapid.Check(t, func(t *rapid.T) {
		var flows []flow
		seen := map[string]bool{}
		for i := range rapid.IntRange(0, 12).Draw(t, "flows") {
			pool := rapid.SampledFrom([][]netip.Addr{pool4, pool6}).Draw(t, "family")
			end := func(port int) netip.AddrPort {
				//nolint:gosec // small
				return netip.AddrPortFrom(rapid.SampledFrom(pool).Draw(t, "address"), uint16(port))
			}
			f := flow{Proto: rapid.SampledFrom([]uint8{tcp, udp}).Draw(t, "proto")}
			f.Orig = [2]netip.AddrPort{end(1000 + i), end(80)}
			f.Reply = [2]netip.AddrPort{end(8080), end(2000 + i)}
			if !seen[f.String()] {
				flows = append(flows, f)
			}
			seen[f.String()] = true
		}
		gone := rapid.SliceOfN(rapid.SampledFrom(slices.Concat(pool4, pool6)), 0, 4).Draw(t, "gone")
		var want, got []string
		for _, f := range flows {
			if !slices.ContainsFunc(gone, f.Has) {
				want = append(want, f.String())
			}
		}
		slices.Sort(want)
		err := netns.Do(func(ns.NetNS) error {
			if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
				return err
			}
			if err := track(flows...); err != nil {
				return err
			}
			if before, err := tracked(); err != nil || !slices.Equal(before, flowTexts(flows)) {
				return fmt.Errorf("the test's flows aren't there: %v, %w", before, err)
			}
			if err := forgetConnections(gone); err != nil {
				return err
			}
			var err error
			got, err = tracked()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("after forgetting %v of %v got %v, want %v", gone, flows, got, want)
		}
	})
}

func TestForgetHostPorts(t *testing.T) {
	t.Parallel()
	type port = cni.HostPort
	flows := []flow{
		natted(udp, "198.51.100.1:1000", "192.0.2.1:5353", "10.1.0.2:53", "198.51.100.1:1000"),
		natted(udp, "198.51.100.2:1000", "192.0.2.2:5353", "10.1.0.2:53", "198.51.100.2:1000"),
		natted(udp, "[2001:db8::9]:1000", "[2001:db8::1]:5353", "[fd00:1::2]:53",
			"[2001:db8::9]:1000"),
		natted(tcp, "198.51.100.1:1000", "192.0.2.1:5353", "10.1.0.2:53", "198.51.100.1:1000"),
		plain(udp, "198.51.100.1:5353", "192.0.2.1:1000"),
		plain(udp, "198.51.100.1:1000", "192.0.2.1:5354"),
	}
	addr := netip.MustParseAddr
	for name, test := range map[string]struct {
		ports []port
		gone  []int
	}{
		"none":        {nil, nil},
		"any address": {[]port{{HostPort: 5353, Protocol: "udp"}}, []int{0, 1, 2}},
		"any IPv4 address": {
			[]port{{HostIP: addr("0.0.0.0"), HostPort: 5353, Protocol: "udp"}}, []int{0, 1}},
		"any IPv6 address": {[]port{{HostIP: addr("::"), HostPort: 5353, Protocol: "udp"}},
			[]int{2}},
		"one address": {
			[]port{{HostIP: addr("192.0.2.2"), HostPort: 5353, Protocol: "udp"}}, []int{1}},
		"one IPv6 address": {
			[]port{{HostIP: addr("2001:db8::1"), HostPort: 5353, Protocol: "udp"}}, []int{2}},
		"two ports": {[]port{{HostPort: 5354, Protocol: "udp"},
			{HostIP: addr("192.0.2.1"), HostPort: 5353, Protocol: "udp"}}, []int{0, 5}},
		"another protocol": {
			[]port{{HostPort: 5353, Protocol: "tcp"}, {HostPort: 5353, Protocol: "sctp"}}, nil},
		"a port that nobody used": {[]port{{HostPort: 9, Protocol: "udp"}}, nil},
		"the same port many times": {slices.Repeat([]port{{HostPort: 5353, Protocol: "udp"}}, 20),
			[]int{0, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			netns := cnitest.NewNetNS(t)
			in(t, netns, func() error {
				if err := track(flows...); err != nil {
					return err
				}
				if err := forgetHostPorts(test.ports); err != nil {
					return err
				}
				var want []flow
				for i, f := range flows {
					if !slices.Contains(test.gone, i) {
						want = append(want, f)
					}
				}
				got, err := tracked()
				if !slices.Equal(got, flowTexts(want)) {
					t.Errorf("got %v, want %v", got, flowTexts(want))
				}
				return err
			})
		})
	}
}

// An entry in a zone is deleted, and the one with the same tuple in another zone, of other
// addresses, isn't mistaken for it.
func TestForgetConnectionsInZones(t *testing.T) {
	t.Parallel()
	netns := cnitest.NewNetNS(t)
	in(t, netns, func() error {
		for _, zone := range []string{"0", "7"} {
			command :=
				"conntrack -I -p udp -s 10.1.0.2 -d 192.0.2.1 --sport 1 --dport 2 -t 600 -w " + zone
			if zone == "7" { // the same original direction, another reply
				command += " -r 192.0.2.9 -q 192.0.2.8 --reply-port-src 2 --reply-port-dst 1"
			}
			words := strings.Fields(command)
			//nolint:gosec,noctx // the test's own
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", command, err, out)
			}
		}
		if err := forgetConnections(cnitest.Addrs("192.0.2.9")); err != nil {
			return err
		}
		got, err := tracked()
		want := []string{plain(udp, "10.1.0.2:1", "192.0.2.1:2").String()}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return err
	})
}

// Real packets through a DNAT: the entry that leads to the old address goes, and the next packet of
// the same socket finds the new one.
func TestForgetHostPortsLetsAClientMove(t *testing.T) {
	t.Parallel()
	netns := cnitest.NewNetNS(t)
	in(t, netns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		servers := map[string]net.PacketConn{}
		for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
			server, err := net.ListenPacket("udp", ip+":53") //nolint:noctx // it doesn't wait
			if err != nil {
				return err
			}
			defer server.Close()
			servers[ip] = server
		}
		client, err := net.Dial("udp", "127.0.0.1:5353") //nolint:noctx // it doesn't wait
		if err != nil {
			return err
		}
		defer client.Close()
		port := []cni.HostPort{{HostPort: 5353, ContainerPort: 53, Protocol: "udp"}}
		for _, step := range []struct {
			owner  string
			forget bool
			gets   string
		}{
			{"127.0.0.2", false, "127.0.0.2"},
			// the control: the old entry still leads to the old owner
			{"127.0.0.3", false, "127.0.0.2"},
			{"127.0.0.3", true, "127.0.0.3"},
		} {
			if err := dnatAll(step.owner); err != nil {
				return err
			}
			if step.forget {
				if err := forgetHostPorts(port); err != nil {
					return err
				}
			}
			if err := exchange(client, servers[step.gets]); err != nil {
				return fmt.Errorf("to %s, owned by %s: %w", step.gets, step.owner, err)
			}
		}
		return nil
	})
}

func dnatAll(to string) error {
	nft := exec.Command("nft", "-f", "-") //nolint:noctx // it ends by itself
	nft.Stdin = strings.NewReader(fmt.Sprintf(`
		table ip t
		delete table ip t
		table ip t {
			chain output {
				type nat hook output priority -100
				udp dport 5353 dnat to %s:53
			}
		}`, to))
	if out, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func exchange(client net.Conn, server net.PacketConn) error {
	if _, err := client.Write([]byte("hello")); err != nil {
		return err
	}
	if err := server.SetReadDeadline(time.Now().Add(cnitest.Patience)); err != nil {
		return err
	}
	got := make([]byte, len("hello"))
	_, _, err := server.ReadFrom(got)
	if err == nil && !bytes.Equal(got, []byte("hello")) {
		err = fmt.Errorf("got %q", got)
	}
	return err
}
