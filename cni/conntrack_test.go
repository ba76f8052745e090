package cni

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
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// flow is an entry for a test to make, in the words of its two directions.
type flow struct {
	proto       uint8
	orig, reply [2]netip.AddrPort // source, destination
}

// plain is a flow whose addresses nobody changes.
func plain(proto uint8, from, to string) flow { return natted(proto, from, to, to, from) }

func natted(proto uint8, origSrc, origDst, replySrc, replyDst string) flow {
	at := netip.MustParseAddrPort
	return flow{proto, [2]netip.AddrPort{at(origSrc), at(origDst)}, [2]netip.AddrPort{at(replySrc), at(replyDst)}}
}

func (f flow) String() string { return fmt.Sprintf("%d %v %v", f.proto, f.orig, f.reply) }

func (f flow) has(addr netip.Addr) bool {
	return slices.ContainsFunc(slices.Concat(f.orig[:], f.reply[:]), func(p netip.AddrPort) bool { return p.Addr() == addr })
}

// track puts flows into the connection tracking of the thread's namespace.
func track(flows ...flow) error {
	handle, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer handle.Close()
	for _, f := range flows {
		family := netlink.InetFamily(unix.AF_INET)
		if f.orig[0].Addr().Is6() {
			family = unix.AF_INET6
		}
		entry := &netlink.ConntrackFlow{
			FamilyType: uint8(family), Forward: netlinkTuple(f.proto, f.orig), Reverse: netlinkTuple(f.proto, f.reply), TimeOut: 600,
		}
		if f.proto == unix.IPPROTO_TCP {
			const established = 3
			entry.ProtoInfo = &netlink.ProtoInfoTCP{State: established}
		}
		if err := handle.ConntrackCreate(netlink.ConntrackTable, family, entry); err != nil {
			return fmt.Errorf("tracking %s: %w", f, err)
		}
	}
	return nil
}

func netlinkTuple(proto uint8, ends [2]netip.AddrPort) netlink.IPTuple {
	return netlink.IPTuple{
		Protocol: proto,
		SrcIP:    ends[0].Addr().AsSlice(), SrcPort: ends[0].Port(),
		DstIP: ends[1].Addr().AsSlice(), DstPort: ends[1].Port(),
	}
}

// tracked is the flows that the library finds in the thread's namespace, as text, sorted.
func tracked() ([]string, error) {
	var all []string
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			ends := func(t netlink.IPTuple) [2]netip.AddrPort {
				src, _ := netip.AddrFromSlice(t.SrcIP)
				dst, _ := netip.AddrFromSlice(t.DstIP)
				return [2]netip.AddrPort{netip.AddrPortFrom(src, t.SrcPort), netip.AddrPortFrom(dst, t.DstPort)}
			}
			all = append(all, flow{e.Forward.Protocol, ends(e.Forward), ends(e.Reverse)}.String())
		}
	}
	slices.Sort(all)
	return all, nil
}

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
	pool4 := addrs("10.1.0.2", "10.1.0.3", "10.1.0.20", "192.0.2.1", "198.51.100.1")
	pool6 := addrs("fd00:1::2", "fd00:1::3", "fd00:1::20", "2001:db8::1", "2001:db8::2")
	netns := newNetNS(t)
	rapid.Check(t, func(t *rapid.T) {
		var flows []flow
		seen := map[string]bool{}
		for i := range rapid.IntRange(0, 12).Draw(t, "flows") {
			pool := rapid.SampledFrom([][]netip.Addr{pool4, pool6}).Draw(t, "family")
			end := func(port int) netip.AddrPort {
				return netip.AddrPortFrom(rapid.SampledFrom(pool).Draw(t, "address"), uint16(port)) //nolint:gosec // small
			}
			f := flow{proto: rapid.SampledFrom([]uint8{tcp, udp}).Draw(t, "proto")}
			f.orig = [2]netip.AddrPort{end(1000 + i), end(80)}
			f.reply = [2]netip.AddrPort{end(8080), end(2000 + i)}
			if !seen[f.String()] {
				flows = append(flows, f)
			}
			seen[f.String()] = true
		}
		gone := rapid.SliceOfN(rapid.SampledFrom(slices.Concat(pool4, pool6)), 0, 4).Draw(t, "gone")
		var want, got []string
		for _, f := range flows {
			if !slices.ContainsFunc(gone, f.has) {
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

// The kernel's filters find the same as looking at everything, so neither is used in vain.
func TestForgetWithAndWithoutTheKernelsFilter(t *testing.T) {
	t.Parallel()
	pod := netip.MustParseAddr("10.1.0.2")
	flows := []flow{
		plain(tcp, "10.1.0.2:1000", "198.51.100.1:80"),
		plain(udp, "198.51.100.1:1000", "10.1.0.2:53"),
		natted(tcp, "198.51.100.1:1000", "192.0.2.1:30080", "10.1.0.2:8080", "198.51.100.1:1000"),
		natted(tcp, "10.1.0.2:1001", "198.51.100.1:80", "198.51.100.1:80", "192.0.2.1:40000"),
		natted(udp, "198.51.100.1:7", "10.1.0.2:7", "198.51.100.2:7", "198.51.100.1:7"),
		natted(udp, "198.51.100.1:8", "198.51.100.2:8", "198.51.100.2:8", "10.1.0.2:8"),
	}
	other := []flow{
		plain(tcp, "10.1.0.20:1000", "198.51.100.1:80"),
		plain(udp, "[fd00:1::2]:1000", "[2001:db8::1]:53"),
	}
	netns := newNetNS(t)
	in(t, netns, func() error {
		if err := track(slices.Concat(flows, other)...); err != nil {
			return err
		}
		table, err := openConntrack()
		if err != nil {
			return err
		}
		defer table.close()
		if n, err := table.count(); err != nil || n != len(flows)+len(other) {
			t.Errorf("counted %d (%v), want %d", n, err, len(flows)+len(other))
		}
		found := map[string]bool{}
		for _, q := range queriesForAddr(pod) {
			entries, err := table.list(q, func(connection) bool { return true })
			if err != nil {
				return err
			}
			if len(entries) == 0 || len(entries) > len(flows)-2 {
				t.Errorf("%+v finds %d entries", q, len(entries))
			}
			for _, c := range entries {
				found[string(c.name())] = true
			}
		}
		if len(found) != len(flows) {
			t.Errorf("the filters find %d entries, want %d", len(found), len(flows))
		}
		return nil
	})
}

func TestForgetHostPorts(t *testing.T) {
	t.Parallel()
	type port = HostPort
	flows := []flow{
		natted(udp, "198.51.100.1:1000", "192.0.2.1:5353", "10.1.0.2:53", "198.51.100.1:1000"),
		natted(udp, "198.51.100.2:1000", "192.0.2.2:5353", "10.1.0.2:53", "198.51.100.2:1000"),
		natted(udp, "[2001:db8::9]:1000", "[2001:db8::1]:5353", "[fd00:1::2]:53", "[2001:db8::9]:1000"),
		natted(tcp, "198.51.100.1:1000", "192.0.2.1:5353", "10.1.0.2:53", "198.51.100.1:1000"),
		plain(udp, "198.51.100.1:5353", "192.0.2.1:1000"),
		plain(udp, "198.51.100.1:1000", "192.0.2.1:5354"),
	}
	addr := netip.MustParseAddr
	for name, test := range map[string]struct {
		ports []port
		gone  []int
	}{
		"none":                     {nil, nil},
		"any address":              {[]port{{HostPort: 5353, Protocol: "udp"}}, []int{0, 1, 2}},
		"any IPv4 address":         {[]port{{HostIP: addr("0.0.0.0"), HostPort: 5353, Protocol: "udp"}}, []int{0, 1}},
		"any IPv6 address":         {[]port{{HostIP: addr("::"), HostPort: 5353, Protocol: "udp"}}, []int{2}},
		"one address":              {[]port{{HostIP: addr("192.0.2.2"), HostPort: 5353, Protocol: "udp"}}, []int{1}},
		"one IPv6 address":         {[]port{{HostIP: addr("2001:db8::1"), HostPort: 5353, Protocol: "udp"}}, []int{2}},
		"two ports":                {[]port{{HostPort: 5354, Protocol: "udp"}, {HostIP: addr("192.0.2.1"), HostPort: 5353, Protocol: "udp"}}, []int{0, 5}},
		"another protocol":         {[]port{{HostPort: 5353, Protocol: "tcp"}, {HostPort: 5353, Protocol: "sctp"}}, nil},
		"a port that nobody used":  {[]port{{HostPort: 9, Protocol: "udp"}}, nil},
		"the same port many times": {slices.Repeat([]port{{HostPort: 5353, Protocol: "udp"}}, 20), []int{0, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			netns := newNetNS(t)
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

// An entry in a zone is deleted, and the one with the same tuple in another zone, of other addresses, isn't mistaken for it.
func TestForgetConnectionsInZones(t *testing.T) {
	t.Parallel()
	netns := newNetNS(t)
	in(t, netns, func() error {
		for _, zone := range []string{"0", "7"} {
			command := "conntrack -I -p udp -s 10.1.0.2 -d 192.0.2.1 --sport 1 --dport 2 -t 600 -w " + zone
			if zone == "7" { // the same original direction, another reply
				command += " -r 192.0.2.9 -q 192.0.2.8 --reply-port-src 2 --reply-port-dst 1"
			}
			words := strings.Fields(command)
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil { //nolint:gosec,noctx // the test's own
				return fmt.Errorf("%s: %w: %s", command, err, out)
			}
		}
		if err := forgetConnections(addrs("192.0.2.9")); err != nil {
			return err
		}
		got, err := tracked()
		if want := []string{plain(udp, "10.1.0.2:1", "192.0.2.1:2").String()}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return err
	})
}

// Real packets through a DNAT: the entry that leads to the old address goes, and the next packet of the same socket finds the new one.
func TestForgetHostPortsLetsAClientMove(t *testing.T) {
	t.Parallel()
	netns := newNetNS(t)
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
		port := []HostPort{{HostPort: 5353, ContainerPort: 53, Protocol: "udp"}}
		for _, step := range []struct {
			owner  string
			forget bool
			gets   string
		}{
			{"127.0.0.2", false, "127.0.0.2"},
			{"127.0.0.3", false, "127.0.0.2"}, // the control: the old entry still leads to the old owner
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
	if err := server.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	got := make([]byte, len("hello"))
	_, _, err := server.ReadFrom(got)
	if err == nil && !bytes.Equal(got, []byte("hello")) {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// A message that isn't whole names nothing: to delete by no name is to delete everything.
func TestParseConnectionOfRubbish(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		if c, ok := parseConnection(data); ok && len(c.rawOrig) == 0 {
			t.Fatalf("%x is an entry without a name", data)
		}
	})
	whole := append(make([]byte, nl.SizeofNfgenmsg), appendAttribute(nil, nl.CTA_TUPLE_ORIG, nil)...)
	if c, ok := parseConnection(whole); ok {
		t.Errorf("an empty tuple is taken for %+v", c)
	}
}
