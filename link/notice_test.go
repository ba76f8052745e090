package link

import (
	"context"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/test/stretch"
)

// Each change is announced with what says whom it concerns.
func TestNotices(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	var mu sync.Mutex
	seen := map[Notice]bool{}
	l := NewLoop(s.NetNS, "", time.Hour, 0, logr.Discard())
	started := make(chan struct{}, 100)
	l.Pass = func(*Kernel) bool {
		started <- struct{}{}
		return true
	}
	l.Concerns = func(n Notice) bool {
		mu.Lock()
		defer mu.Unlock()
		seen[n] = true
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-started
	index := s.Links()["v0"].Index
	prefix := netip.MustParsePrefix
	for command, want := range map[string]Notice{
		"ip link set v0 alias x":         {Type: unix.RTM_NEWLINK, Index: index, Name: "v0"},
		"ip addr add 10.3.0.1/24 dev v0": {Type: unix.RTM_NEWADDR, Index: index},
		"ip addr add fe80::5/64 dev v0 nodad": {
			Type: unix.RTM_NEWADDR, Index: index, Scope: unix.RT_SCOPE_LINK},
		"ip neigh add 10.0.0.5 lladdr 02:0:0:0:0:1 dev v0": {Type: unix.RTM_NEWNEIGH, Index: index},
		"tc qdisc add dev v0 root tbf rate 1gbit burst 1mb limit 1mb": {
			Type: unix.RTM_NEWQDISC, Index: index},
		"ip route add 10.4.0.0/24 dev v0 proto 98": {
			Type: unix.RTM_NEWROUTE, Protocol: 98, Table: unix.RT_TABLE_MAIN,
			To: prefix("10.4.0.0/24")},
		"ip route add default via 10.0.0.5 proto 98 metric 7": {
			Type: unix.RTM_NEWROUTE, Protocol: 98, Table: unix.RT_TABLE_MAIN,
			To: prefix("0.0.0.0/0")},
		"ip -6 route add default via fe80::9 dev v0 proto 98 metric 7": {
			Type: unix.RTM_NEWROUTE, Protocol: 98, Table: unix.RT_TABLE_MAIN, To: prefix("::/0")},
		"sysctl -w net.ipv4.conf.v0.forwarding=0\nsysctl -w net.ipv4.conf.v0.forwarding=1": {
			Type: unix.RTM_NEWNETCONF, Index: index},
		"sysctl -w net.ipv4.conf.all.forwarding=0\nsysctl -w net.ipv4.conf.all.forwarding=1": {
			Type: unix.RTM_NEWNETCONF, Index: AllLinks},
	} {
		s.Run(command)
		deadline := time.Now().Add(stretch.By(time.Minute))
		for isSeen := false; !isSeen; {
			mu.Lock()
			isSeen = seen[want]
			mu.Unlock()
			if !isSeen && time.Now().After(deadline) {
				t.Fatalf("%s: no %+v among %+v", command, want, seen)
			}
			<-time.After(time.Millisecond)
		}
	}
}

// Whatever a message holds, reading it doesn't panic, and finds no index or name beyond its end.
func FuzzMessages(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWLINK), make([]byte, 40))
	f.Add(uint16(unix.RTM_NEWROUTE), make([]byte, 12))
	f.Add(uint16(unix.RTM_NEWNETCONF), []byte{2, 0, 0, 0, 8, 0, 1, 0, 255, 255, 255, 255})
	f.Add(uint16(unix.RTM_NEWADDR), []byte{2})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		n, ok := parseNotice(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind},
			Data: data})
		if ok && n.Type != kind || len(n.Name) > len(data) {
			t.Errorf("got %+v", n)
		}
		if found, ok := parseLink(data); ok && (found.Name == "" || len(found.Name) > len(data)) {
			t.Errorf("got %+v", found)
		}
		if e, ok := parseEntry(data); ok && e.dst.IsValid() && e.dst.Zone() != "" {
			t.Errorf("got %+v", e)
		}
	})
}

// TestLoopTriesAgain: a pass that fails is repeated long before the tick, and one that doesn't
// isn't.
func TestLoopTriesAgain(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	l := NewLoop(s.NetNS, "", time.Hour, 0, logr.Discard())
	passes := make(chan int, 10)
	count := 0
	l.Concerns = func(Notice) bool { return false }
	l.Pass = func(*Kernel) bool {
		count++
		passes <- count
		return count >= 3
	}
	ctx, cancel := context.WithTimeout(context.Background(), stretch.By(time.Minute))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	for i := range 3 {
		select {
		case <-passes:
		case <-ctx.Done():
			t.Fatalf("%d passes", i)
		}
	}
	l.Wake()
	select {
	case <-passes:
	case <-ctx.Done():
		t.Fatal("no pass after Wake")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if count != 4 {
		t.Errorf("%d passes, want 4", count)
	}
}
