package testnet

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tracked is a conntrack entry for a test to make, in the words of its two directions.
type Tracked struct {
	Proto       uint8
	Orig, Reply [2]netip.AddrPort // source, destination
}

// Plain is an entry without translation.
func Plain(proto uint8, from, to string) Tracked { return Translated(proto, from, to, to, from) }

// Translated is an entry whose reply isn't just the original direction reversed.
func Translated(proto uint8, origSrc, origDst, replySrc, replyDst string) Tracked {
	at := netip.MustParseAddrPort
	return Tracked{proto, [2]netip.AddrPort{at(origSrc), at(origDst)},
		[2]netip.AddrPort{at(replySrc), at(replyDst)}}
}

func (f Tracked) String() string { return fmt.Sprintf("%d %v %v", f.Proto, f.Orig, f.Reply) }

// Has says whether the address is anywhere in the entry.
func (f Tracked) Has(addr netip.Addr) bool {
	return slices.ContainsFunc(slices.Concat(f.Orig[:], f.Reply[:]), func(p netip.AddrPort) bool {
		return p.Addr() == addr
	})
}

// Track makes the entries in the thread's network namespace, TCP as established, to last ten
// minutes.
func Track(flows ...Tracked) error {
	handle, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer handle.Close()
	for _, f := range flows {
		family := netlink.InetFamily(unix.AF_INET)
		if f.Orig[0].Addr().Is6() {
			family = unix.AF_INET6
		}
		entry := &netlink.ConntrackFlow{
			FamilyType: uint8(family), Forward: tuple(f.Proto, f.Orig),
			Reverse: tuple(f.Proto, f.Reply), TimeOut: 600,
		}
		if f.Proto == unix.IPPROTO_TCP {
			const established = 3
			entry.ProtoInfo = &netlink.ProtoInfoTCP{State: established}
		}
		if err := handle.ConntrackCreate(netlink.ConntrackTable, family, entry); err != nil {
			return fmt.Errorf("tracking %s: %w", f, err)
		}
	}
	return nil
}

// Crowd are connections of hosts that no test means: as many of each family. They are TCP from
// 10.200.0.0/13, and UDP from 2001:db8:9::/48.
func Crowd(v4, v6 int) (out []Tracked) {
	for i := range v4 {
		out = append(out, Plain(unix.IPPROTO_TCP,
			fmt.Sprintf("10.%d.%d.%d:1000", 200+i>>16, i>>8&255, i&255), "203.0.113.1:80"))
	}
	for i := range v6 {
		out = append(out, Plain(unix.IPPROTO_UDP,
			fmt.Sprintf("[2001:db8:9:%x::%x]:1000", i>>8, i&255), "[2001:db8:8::1]:53"))
	}
	return out
}

func tuple(proto uint8, ends [2]netip.AddrPort) netlink.IPTuple {
	return netlink.IPTuple{
		Protocol: proto,
		SrcIP:    ends[0].Addr().AsSlice(), SrcPort: ends[0].Port(),
		DstIP: ends[1].Addr().AsSlice(), DstPort: ends[1].Port(),
	}
}

// TrackedNow is the entries that the library finds in the thread's network namespace, as text,
// sorted.
func TrackedNow() ([]string, error) {
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
				return [2]netip.AddrPort{netip.AddrPortFrom(src, t.SrcPort),
					netip.AddrPortFrom(dst, t.DstPort)}
			}
			all = append(all,
				Tracked{e.Forward.Protocol, ends(e.Forward), ends(e.Reverse)}.String())
		}
	}
	slices.Sort(all)
	return all, nil
}
