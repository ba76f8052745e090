package main

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/testnet"
)

func TestSend(t *testing.T) {
	t.Parallel()
	node, client, server := twoPods(t)
	start(t, server, "serve", "--name", "web", "--serve", "tcp/80", "--serve", "udp/80").
		awaitServing()
	// Behind the sender's own link of 1500 bytes, the server's takes 1400.
	for _, end := range []struct {
		do   func(func() error) error
		link string
	}{{node.Do, server.Interface()}, {server.Do, linkOf(t, server)}} {
		err := end.do(func() error {
			link, err := netlink.LinkByName(end.link)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, 1400)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, addr := range serverAddrs {
		tcp, udp, icmp := testprogram.NewTarget("tcp", addr, 80),
			testprogram.NewTarget("udp", addr, 80), testprogram.NewTarget("icmp", addr, 0)
		for _, size := range []int{1, sendLine - 1, sendLine, sendLine + 1, 5 << 20} {
			sent := output[testprogram.Sent](t, client, "send", "--size", strconv.Itoa(size),
				tcp.String())
			if !sent.OK || sent.Size != size || sent.Seconds <= 0 || len(sent.Reply) < len("web ") {
				t.Errorf("%d bytes: got %+v", size, sent)
			}
		}
		if sent := output[testprogram.Sent](t, client, "send", "--size", "5000",
			udp.String()); !sent.OK || sent.Seconds > 5 {
			t.Errorf("a fragmented datagram: got %+v", sent)
		}
		for _, target := range []testprogram.Target{udp, icmp} {
			for size, want := range map[int]testprogram.Kind{100: testprogram.OK,
				1400: testprogram.OK, 1401: testprogram.TooBig, 1501: testprogram.TooBig} {
				sent := output[testprogram.Sent](t, client, "send", "--df", "--size",
					fmt.Sprint(size), target.String())
				if sent.Kind != want || sent.MTU == 0 {
					t.Errorf("%s, a packet of %d bytes: got %+v, want %s", target, size, sent, want)
				}
			}
		}
		closed := testprogram.NewTarget("tcp", addr, 81)
		if sent := output[testprogram.Sent](t, client, "send", "--size", "5",
			closed.String()); sent.Kind != testprogram.Reset {
			t.Errorf("a closed port: got %+v", sent)
		}
	}
}

// linkOf names the pod's own end of its link.
func linkOf(t *testing.T, pod *testnet.Host) string {
	t.Helper()
	var name string
	err := pod.Do(func() error {
		links, err := netlink.LinkList()
		for _, link := range links {
			if link.Type() == "veth" {
				name = link.Attrs().Name
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}
