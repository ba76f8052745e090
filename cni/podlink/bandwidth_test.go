package podlink

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/stretch"
)

func TestShapeName(t *testing.T) {
	t.Parallel()
	link := cni.InterfaceName("dev", "pod-a", "eth0")
	name := shapeName(link)
	if len(name) > 15 || !isShapeName(name) || cni.IsInterfaceName(name) ||
		strings.HasPrefix(name, names.PodLink) {
		t.Errorf("%s isn't a good name beside %s", name, link)
	}
	if isShapeName(link) || isShapeName(names.ShapingLink) || isShapeName(names.Tunnel+"1") {
		t.Error("other links' names are taken for shaping devices'")
	}
}

// Every rate and burst that is allowed is read back as it was written, so that nothing is written
// twice.
func TestShapersAreReadBack(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 1)
	a := w.Attachments()[0]
	s := w.openHere()
	for _, rate := range []uint64{8, 1e3, 64e3, 1e6, 123456789, 1e9, 40e9, 400e9, math.MaxUint64} {
		for _, burst := range []uint64{1, 1e5, 1e6, math.MaxUint32, 8*math.MaxUint32 + 7} {
			a.Bandwidth = cni.Bandwidth{IngressRate: rate, IngressBurst: burst}
			w.ends.Set([]cni.Attachment{a}, nil, nil)
			w.pass(s)
			w.InNode(func() error {
				same, err := w.ends.round(s, w.ends.inputs)
				if !same || err != nil {
					t.Errorf("rate %d, burst %d bits: not read back (%v): %v", rate, burst, err,
						cnitest.Lines(t, w.NetNS, "tc qdisc show"))
				}
				return nil
			})
		}
	}
}

// throughput is how many bytes a second get from one namespace to an address in another by TCP,
// within a window that begins when the connection was open for settle, which is what it takes to
// use up the burst.
func throughput(from, to ns.NetNS, addr netip.Addr,
	settle, window time.Duration) (bytesPerSecond float64, err error) {
	var listener net.Listener
	if err := to.Do(func(ns.NetNS) (err error) {
		listener, err = net.Listen("tcp",
			netip.AddrPortFrom(addr, 0).String()) //nolint:noctx // it doesn't wait
		return err
	}); err != nil {
		return 0, err
	}
	defer listener.Close()
	sent := make(chan error, 1)
	go func() {
		sent <- from.Do(func(ns.NetNS) error {
			conn, err := net.DialTimeout("tcp", listener.Addr().String(), cnitest.Patience)
			if err != nil {
				return err
			}
			defer conn.Close()
			chunk := make([]byte, 64<<10)
			for err == nil { // until the other side has enough
				_, err = conn.Write(chunk)
			}
			return nil
		})
	}()
	conn, err := listener.Accept()
	if err != nil {
		return 0, err
	}
	if _, err := drain(conn, settle); err != nil {
		return 0, err
	}
	start := time.Now()
	n, err := drain(conn, window)
	took := time.Since(start)
	return float64(n) / took.Seconds(), errors.Join(err, conn.Close(), <-sent)
}

// drain reads for so long, and returns how much came.
func drain(conn net.Conn, d time.Duration) (int64, error) {
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}

// reached measures until the throughput isn't below what is wanted, and not too often. TCP that has
// lost packets to a processor that others use needs its time; a limit that is too low stays so. One
// that is too high shows at once.
func reached(t *testing.T, want float64, measure func() (float64, error)) (got float64) {
	t.Helper()
	const tries = 10
	for range tries {
		var err error
		if got, err = measure(); err != nil {
			t.Fatal(err)
		}
		if got >= 0.7*want {
			break
		}
	}
	return got
}

// A pod with limits gets and sends as much as they say, in each direction and family; one without
// gets and sends much more.
func TestBandwidthHolds(t *testing.T) {
	w := newHostWorld(t, 2)
	limited, free := w.pods[0], w.pods[1]
	const rate, burst = 40e6, 8 * 64 << 10 // bits
	w.start(func(a *cni.Attachment) {
		if a.ContainerID == limited.Args.ContainerID {
			a.Bandwidth = cni.Bandwidth{IngressRate: rate, IngressBurst: burst,
				EgressRate: rate / 2, EgressBurst: burst}
		}
	})
	for i, family := range []string{"IPv4", "IPv6"} {
		node := []netip.Addr{cnitest.Node4, cnitest.Node6}[i]
		for _, direction := range []struct {
			name string
			want float64 // bytes per second
			of   func(p *cnitest.Pod, settle, window time.Duration) (float64, error)
		}{
			{"to the pod", rate / 8,
				func(p *cnitest.Pod, settle, window time.Duration) (float64, error) {
					return throughput(w.NetNS, p.NetNS, p.Addrs[i], settle, window)
				}},
			{"from the pod", rate / 16,
				func(p *cnitest.Pod, settle, window time.Duration) (float64, error) {
					return throughput(p.NetNS, w.NetNS, node, settle, window)
				}},
		} {
			t.Run(family+" "+direction.name, func(t *testing.T) {
				got := reached(t, direction.want, func() (float64, error) {
					return direction.of(limited, 400*time.Millisecond, 1100*time.Millisecond)
				})
				control, err := direction.of(free, 0, 300*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%.2f of the limit; without limit %.0f times as much", got/direction.want,
					control/got)
				if got > 1.3*direction.want || got < 0.7*direction.want {
					t.Errorf("got %.0f bytes per second, want %.0f ± 30 %%", got, direction.want)
				}
				if control < 5*direction.want && stretch.Factor() > 1 {
					t.Skip("needs a processor that sends five times as much: this one is emulated")
				}
				if control < 5*direction.want {
					t.Errorf("without a limit it is only %.0f bytes per second, so this test "+
						"shows little", control)
				}
			})
		}
	}
}

// The shaping device goes with the attachment, whatever became of the pod's link, and another pod's
// stays.
func TestShapingGoesWithThePod(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 2)
	w.start(func(a *cni.Attachment) {
		a.Bandwidth = cni.Bandwidth{EgressRate: 1e6, EgressBurst: 1e6}
	})
	devices := func() int {
		return strings.Count(strings.Join(cnitest.Lines(t, w.NetNS, "ip -o link show"), "\n"),
			": slub")
	}
	if n := devices(); n != 2 {
		t.Fatalf("there are %d shaping devices, want 2", n)
	}
	attachments := w.Attachments()
	for i := range attachments {
		attachments[i].Bandwidth = cni.Bandwidth{EgressRate: 1e6, EgressBurst: 1e6}
	}
	w.pods[0].MustDel()
	w.ends.Set(attachments[1:], nil, podCIDRs)
	cnitest.Eventually(t, "one device goes", func() bool { return devices() == 1 })
	got := fmt.Sprint(cnitest.Lines(t, w.NetNS, "ip -o link show"))
	if !strings.Contains(got, shapeName(attachments[1].Interface)) {
		t.Errorf("the wrong one went: %s", got)
	}
	cnitest.Lines(t, w.NetNS, "ip link add slubx type ifb") // not of ours, by its name
	w.ends.Set(nil, nil, podCIDRs)
	cnitest.Eventually(t, "the other goes", func() bool { return devices() == 1 })
}

// TestStrangersShapingName: a link of another kind with the name of a shaping device is another's:
// it stays as it is, and a pass has nothing to do about it. The control is a shaping device, which
// goes.
func TestStrangersShapingName(t *testing.T) {
	t.Parallel()
	w := newBareWorld(t)
	const name = "slub0123456789a"
	links := func() string { return strings.Join(cnitest.Lines(t, w.NetNS, "ip -o link"), "\n") }
	for kind, stays := range map[string]bool{"bridge": true, ifb: false} {
		cnitest.Lines(t, w.NetNS, "ip link add "+name+" up type "+kind+
			"; tc qdisc add dev "+name+" root tbf rate 1gbit burst 1mb limit 1mb")
		keeper := NewKeeper(KeeperOptions{NetNS: w.NetNS})
		keeper.Set(nil, nil, podCIDRs)
		w.InNode(func() error {
			k, err := link.Open(link.ProcSys)
			if err != nil {
				return err
			}
			defer k.Close()
			for range 2 {
				if !keeper.pass(k) {
					t.Errorf("%s: the pass fails: %s", kind, keeper.lastErr)
				}
			}
			return nil
		})
		if strings.Contains(links(), ": "+name) != stays {
			t.Errorf("%s: it stays should be %t: %s", kind, stays, links())
		}
		if stays {
			cnitest.Lines(t, w.NetNS, "ip link del "+name)
		}
	}
}
