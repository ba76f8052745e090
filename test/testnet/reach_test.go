package testnet

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/internal/names"
)

func TestReachWithoutRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachWay(w.pairs(), func(from, to *Host, proto Protocol, dst netip.Addr) {
		reply := from.MustReach(t, proto, at(dst, openPort)).Reply
		source := from.Addr4()
		if dst.Is6() {
			source = from.Addr6()
		}
		want := to.Name() + " " + at(source, 0).String()
		want = strings.TrimSuffix(want, "0") // any port
		if proto == ICMP {
			want = dst.String()
		}
		if !strings.HasPrefix(reply, want) {
			t.Errorf("%s: got reply %q, want %q", from.describe(proto, at(dst, openPort)),
				reply, want)
		}
	})
}

func TestClosedPortResets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachWay(w.pairs(), func(from, _ *Host, proto Protocol, dst netip.Addr) {
		if proto == ICMP {
			return
		}
		if r := from.MustNotReach(t, proto, at(dst, closedPort)); !errors.Is(r.Err, ErrReset) {
			t.Errorf("%s: got %v, want a reset", from.describe(proto, at(dst, closedPort)), r)
		}
	})
}

func TestEveryRefusalIsSeen(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a := n.Pod("a", addrsA...)
	n.Pod("b", addrsB...)
	for _, dst := range addrsB {
		for range 20 { // more than ICMP rate limits let through by default
			if r := a.MustNotReach(t, UDP, at(dst, closedPort)); !errors.Is(r.Err, ErrReset) {
				t.Fatalf("got %v, want a reset", r)
			}
		}
	}
}

func TestSCTPWithoutResponderResets(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
	for _, dst := range addrsB {
		if r := a.MustNotReach(t, SCTP, at(dst, openPort)); !errors.Is(r.Err, ErrReset) {
			t.Errorf("got %v, want a reset", r)
		}
	}
	b.ServeSCTP(openPort)
	for _, dst := range addrsB {
		a.MustReach(t, SCTP, at(dst, openPort))
	}
}

func TestSourceOptions(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	second := addrs("10.0.0.22", "fd00::22")
	a, b := n.Pod("a", append(second, addrsA...)...), n.Pod("b", addrsB...)
	serveAll(b)
	for i, dst := range addrsB {
		for _, proto := range []Protocol{TCP, UDP, SCTP} {
			for range 3 { // the port is free again at once
				source := at(addrsA[i], 4242)
				r := a.Connect(proto, at(dst, openPort), FromAddr(source.Addr()),
					FromPort(source.Port()), WithTimeout(patience))
				if want := "b " + source.String(); r.Reply != want {
					t.Errorf("%s: got %v, want reply %q", proto, r, want)
				}
			}
		}
		a.MustReach(t, ICMP, at(dst, 0), FromAddr(addrsA[i]))
	}
	if r := a.Connect(TCP, at(addrsB[0], openPort), FromAddr(addrsB[1])); r.OK {
		t.Errorf("from another family's address: got %v, want an error", r)
	}
}

// A FIN that is sent again would be counted, and judged, by rules of later.
func TestConnectLeavesNothingToSendAgain(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
	b.ServeTCP(openPort)
	a.MustReach(t, TCP, at(addrsB[0], openPort))
	err := a.Do(func() error {
		sockets, err := os.ReadFile("/proc/thread-self/net/tcp")
		if lines := strings.Count(string(sockets), "\n"); lines != 1 {
			t.Errorf("got %d lines, want the header alone:\n%s", lines, sockets)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestConnectDeadline(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a := n.Pod("a", addrsA...)
	n.Pod("b", addrsB...)
	n.Nft("add table inet test; add chain inet test f { type filter hook forward priority 0; " +
		"policy drop; }")
	for _, proto := range []Protocol{TCP, UDP, SCTP, ICMP} {
		const timeout = 120 * time.Millisecond
		start := time.Now()
		a.MustNotReach(t, proto, at(addrsB[0], openPort), WithTimeout(timeout))
		if took := time.Since(start); took < timeout || took > timeout+time.Minute {
			t.Errorf("%s: silence took %v, want about %v", proto, took, timeout)
		}
	}
}

func TestPodWiring(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.MustReach(t, TCP, at(w.b.Addr4(), openPort))
	w.a.MustReach(t, TCP, at(w.b.Addr6(), openPort))

	if len(w.a.Interface()) != 15 || !strings.HasPrefix(w.a.Interface(), names.PodLink) ||
		w.a.Interface() != InterfaceName("pod-a") {
		t.Errorf("a pod's interface is %q", w.a.Interface())
	}
	if strings.HasPrefix(w.away.Interface(), names.PodLink) {
		t.Errorf("an outside host's interface is %q", w.away.Interface())
	}
	link, err := w.node.space.nl.LinkByName(w.a.Interface())
	if err != nil {
		t.Fatal(err)
	}
	if link.Attrs().RawFlags&0x80 == 0 { // IFF_NOARP
		t.Errorf("ARP is on: flags %#x", link.Attrs().RawFlags)
	}
	for where, space := range map[string]*namespace{"node": w.node.space, "pod": w.a.space} {
		inside := link
		if space != w.node.space {
			if inside, err = space.nl.LinkByName(insideName); err != nil {
				t.Fatal(err)
			}
		}
		neighbours, err := space.nl.NeighList(inside.Attrs().Index, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		permanent := 0
		for _, neighbour := range neighbours {
			switch neighbour.State {
			case netlink.NUD_PERMANENT:
				permanent++
			case netlink.NUD_NOARP: // multicast
			default:
				t.Errorf("%s: neighbour %v was resolved", where, neighbour)
			}
		}
		if permanent != 2 {
			t.Errorf("%s: %d permanent neighbours, want 2: %v", where, permanent, neighbours)
		}
	}
}

func TestRemoveFreesTheAddress(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	a, b := n.Pod("a", addrsA...), n.Pod("b", addrsB...)
	b.ServeTCP(openPort)
	a.MustReach(t, TCP, at(addrsB[0], openPort))

	b.Remove()
	b.Remove()
	if r := a.Connect(TCP, at(addrsB[0], openPort)); !errors.Is(r.Err, ErrUnreachable) {
		t.Errorf("a removed pod's address: got %v, want unreachable", r)
	}
	if _, err := n.space.nl.LinkByName(b.Interface()); err == nil {
		t.Error("a removed pod's veth is still there")
	}

	c := n.Pod("c", addrsB...)
	c.ServeTCP(openPort)
	if r := a.MustReach(t, TCP, at(addrsB[0], openPort)); !strings.HasPrefix(r.Reply, "c ") {
		t.Errorf("got reply %q, want one of c", r.Reply)
	}
}

func TestOneFamilyOnly(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	for i := range addrsA {
		a, b := n.Pod("a"+addrsA[i].String(), addrsA[i]), n.Pod("b"+addrsB[i].String(), addrsB[i])
		away := n.Outside("away"+addrsOutside[i].String(), addrsOutside[i])
		b.ServeTCP(openPort)
		a.MustReach(t, TCP, at(addrsB[i], openPort))
		away.MustReach(t, TCP, at(addrsB[i], openPort))
		if a.Addr4().IsValid() == a.Addr6().IsValid() {
			t.Errorf("addresses %v, %v, want one valid", a.Addr4(), a.Addr6())
		}
	}
}

func TestNodesAreApart(t *testing.T) {
	t.Parallel()
	first, second := NewNode(t), NewNode(t)
	a := first.Pod("a", addrsA...)
	second.Pod("b", addrsB...).ServeTCP(openPort)
	if r := a.Connect(TCP, at(addrsB[0], openPort)); !errors.Is(r.Err, ErrUnreachable) {
		t.Errorf("got %v, want unreachable", r)
	}
}

func TestAnswersComeFromTheAddressAsked(t *testing.T) {
	t.Parallel()
	n := NewNode(t)
	more := addrs("10.0.0.31", "fd00::31", "10.0.0.32", "fd00::32")
	a, b := n.Pod("a", addrsA...), n.Pod("b", append(more, addrsB...)...)
	serveAll(b)
	for _, dst := range append(more, addrsB...) {
		for _, proto := range []Protocol{TCP, UDP, SCTP, ICMP} {
			a.MustReach(t, proto, at(dst, openPort))
		}
	}
}
