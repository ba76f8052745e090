package enforcer

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// ipvsLink makes kube-proxy's link, or takes it away. A bridge stands in for a dummy, which not
// every kernel has.
func (w *cutWorld) ipvsLink(there bool) {
	w.T.Helper()
	if err := w.Node.Do(func() error {
		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: IPVSLink}}
		if there {
			return netlink.LinkAdd(link)
		}
		return netlink.LinkDel(link)
	}); err != nil {
		w.T.Fatal(err)
	}
}

// watchIPVS has the Enforcer follow what is in the node's namespace.
func (w *cutWorld) watchIPVS() {
	w.T.Helper()
	netns, err := ns.GetNS(w.Node.Path())
	if err != nil {
		w.T.Fatal(err)
	}
	watch := NewIPVSWatch(w.e, netns, logr.Discard())
	if err := watch.Start(); err != nil {
		w.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- watch.Run(ctx) }()
	w.T.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, netns.Close()); err != nil {
			w.T.Error(err)
		}
	})
}

// TestIPVSIsFollowed: while kube-proxy's link is there, what is sent on to a pod by way of output
// is judged, and what was sent on before is cut. A raw socket stands in for IPVS.
func TestIPVSIsFollowed(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
	w.watchIPVS()
	w.policies(map[string]string{"dev/p": denyDB})
	sink := w.Hosts["dev/db"].Sink(testnet.UDP, 9000)
	sendOn := func(port uint16) {
		t.Helper()
		err := w.Hosts["node"].SendUDP(netip.AddrPortFrom(w.Addr("prod/web", 4), port),
			netip.AddrPortFrom(w.Addr("dev/db", 4), 9000))
		if err != nil && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
	}
	tracked := func(port uint16) []conntrack.Entry {
		return w.entries(func(e *conntrack.Entry) bool { return e.Orig.SrcPort == port })
	}
	judged := func() bool { return strings.Contains(w.Node.Nft("list", "ruleset"), "ipvs-ingress") }
	if judged() {
		t.Fatal("output is judged without IPVS")
	}
	// else the second look after the policy's commit would find what is sent on now
	looks, since := w.sweeps.Load(), time.Now()
	w.eventually("the looks are over", func() bool {
		if n := w.sweeps.Load(); n != looks {
			looks, since = n, time.Now()
		}
		return time.Since(since) > 2*lookAgain
	})
	sendOn(7001)
	w.eventually("control: it comes", func() bool { return sink.Received() == 1 })

	w.ipvsLink(true)
	w.eventually("output is judged", judged)
	w.eventually("what was sent on before is cut", func() bool {
		all := tracked(7001)
		return len(all) == 1 && all[0].Labels.Has(packetworld.CutBit)
	})
	w.commit()
	sendOn(7002)
	if n := len(tracked(7002)); n != 0 {
		t.Errorf("what was sent on is tracked, and so wasn't dropped: %d", n)
	}

	w.ipvsLink(false)
	w.eventually("output isn't judged any more", func() bool { return !judged() })
	w.commit()
	sendOn(7003)
	w.eventually("it comes again", func() bool { return sink.Received() == 2 })
}

// TestServiceWithoutTheLink: IPVS that others than kube-proxy use is found by its Services.
func TestServiceWithoutTheLink(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
	w.IPVS(4, w.Addr("node", 4), 30080, "dev/db", 8080)
	if err := w.Node.Do(func() error {
		_, err := netlink.LinkByName(IPVSLink)
		return err
	}); err == nil {
		t.Fatal("the link is there")
	}
	w.watchIPVS()
	w.eventually("output is judged", func() bool {
		return strings.Contains(w.Node.Nft("list", "ruleset"), "ipvs-ingress")
	})
}

// TestServicesOfIPVS: a listing of the kernel's has a Service or hasn't.
func TestServicesOfIPVS(t *testing.T) {
	t.Parallel()
	const headings = "IP Virtual Server version 1.2.1 (size=4096)\n" +
		"Prot LocalAddress:Port Scheduler Flags\n" +
		"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
	for listing, want := range map[string]bool{
		"":                                    false,
		headings:                              false,
		headings + "TCP  0A60000A:0050 rr \n": true,
		headings + "UDP  [fd00:0010:0096:0000:0000:0000:0000:0010]:0035 rr \n":        true,
		headings + "SCTP 0A60000A:0050 rr \n":                                         true,
		headings + "FWM  00000001 rr \n  -> 0AF4010A:0050      Masq    1      0  0\n": true,
	} {
		got, err := listsService(strings.NewReader(listing))
		if err != nil || got != want {
			t.Errorf("%q: got %v, want %v, error %v", listing, got, want, err)
		}
	}
	if _, err := listsService(badFile{}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("want the error of reading, got %v", err)
	}
}

type badFile struct{}

func (badFile) Read([]byte) (int, error) { return 0, os.ErrInvalid }
