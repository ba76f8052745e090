package enforcer

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nflog"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

// lines are what a DenialLog has logged.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (l *lines) add(_, args string) {
	if !strings.Contains(args, `"msg"="Denied"`) {
		return // the group wasn't free yet
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, args)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// startLog runs a DenialLog until the test ends; its group is read on return.
func (w *denialWorld) startLog() *lines {
	w.t.Helper()
	out := &lines{}
	denials := &DenialLog{Enforcer: w.enforcer, Group: w.cfg.LogGroup, netNS: w.node.NSFd(),
		Log: funcr.New(out.add, funcr.Options{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- denials.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.eventually("the group being read", func() bool {
		reader, err := nflog.Open(nflog.Options{Group: w.cfg.LogGroup, NetNS: w.node.NSFd()})
		if err == nil {
			err = reader.Close()
			return err != nil
		}
		return true
	})
	return out
}

func (w *denialWorld) eventually(what string, f func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(packetworld.Patience); !f(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// expectLine waits for a line that has all of it.
func (w *denialWorld) expectLine(l *lines, want ...string) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(packetworld.Patience); ; <-tick.C {
		for _, line := range l.all() {
			missing := 0
			for _, part := range want {
				if !strings.Contains(line, part) {
					missing++
				}
			}
			if missing == 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no line has %q:\n%s", want, strings.Join(l.all(), "\n"))
		}
	}
}

// TestDenialsAreReported: each kind of denial gives a line that says who, what and by which
// policies; what is allowed gives none.
func TestDenialsAreReported(t *testing.T) {
	t.Parallel()
	w := newDenialWorld(t, ruleset.Config{LogGroup: 9, LogPerSecond: 1000})
	l := w.startLog()
	w.send(1, 4, false) // control: not denied
	w.policies(denyEgress, allow80, denyIngress)
	for _, family := range []int{4, 6} {
		pod, out := w.pod.Addr4(), w.out.Addr4()
		if family == 6 {
			pod, out = w.pod.Addr6(), w.out.Addr6()
		}
		if err := w.out.SendUDP(netip.AddrPortFrom(out, 4242),
			netip.AddrPortFrom(pod, 53)); err != nil {
			t.Fatal(err)
		}
		w.expectLine(l, `"msg"="Denied" "direction"="ingress"`,
			fmt.Sprintf(`"source"=%q "destination"=%q "destinationPod"="dev/web"`, out, pod),
			`"protocol"="UDP" "port"=53 "sourcePort"=4242`,
			`"policies"="dev/p1,dev/p2" "nearest"="dev/p1 ingress rule 0`)
		if err := w.pod.SendTCP(netip.AddrPortFrom(pod, 4242), netip.AddrPortFrom(out, 80),
			testnet.SYN, 1, 0); err != nil {
			t.Fatal(err)
		}
		w.expectLine(l, `"direction"="egress"`,
			fmt.Sprintf(`"source"=%q "sourcePod"="dev/web" "destination"=%q`, pod, out),
			`"protocol"="TCP" "port"=80 "sourcePort"=4242 "policies"="dev/p0"`)
		// Reset, which is a denial as well.
		if err := w.pod.SendTCP(netip.AddrPortFrom(pod, 4343), netip.AddrPortFrom(out, 80),
			testnet.ACK, 1, 1); err != nil {
			t.Fatal(err)
		}
		w.expectLine(l, `"direction"="egress"`,
			fmt.Sprintf(`"destination"=%q "protocol"="TCP" "port"=80 "sourcePort"=4343`, out))
		w.pod.MustNotReach(t, testnet.ICMP, netip.AddrPortFrom(out, 0))
		w.expectLine(l, `"direction"="egress"`,
			fmt.Sprintf(`"destination"=%q "protocol"="ICMP`, out), `"code"=0 "policies"="dev/p0"`)
	}
	for _, line := range l.all() {
		if strings.Contains(line, `"port"=9 `) {
			t.Errorf("what wasn't denied is logged: %s", line)
		}
	}
}

// TestDenialsAreSampled: of a flood in both directions, a pod's records stay within the limit. The
// bound follows the measured time, which is longer than the flood's, so a slow machine only makes
// it looser; the exact second is TestSampleLimit's.
func TestDenialsAreSampled(t *testing.T) {
	t.Parallel()
	const perSecond = 10
	w := newDenialWorld(t, ruleset.Config{LogGroup: 9, LogPerSecond: perSecond})
	w.policies(denyIngress, denyEgress)
	l := w.startLog()
	begin := time.Now()
	for range 300 {
		w.send(1, 4, false)
		w.send(1, 6, true)
	}
	elapsed := time.Since(begin)
	w.expect("after the flood", denied(policy.Ingress, 300, 0), denied(policy.Egress, 0, 300))
	w.expectLine(l, `"direction"="ingress"`)
	w.expectLine(l, `"direction"="egress"`)
	most := int(perSecond * (elapsed/time.Second + 1))
	if n := len(l.all()); n > most {
		t.Errorf("%d lines in %s, want at most %d", n, elapsed, most)
	}
}

// TestLineBudget: with any arrivals, no second has more lines than it may, and the lines and those
// counted as left out are together what came.
func TestLineBudget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := denialBudget{most: rapid.IntRange(1, 5).Draw(t, "most")}
		now := time.Unix(1000, 0)
		var came, logged, leftOut uint64
		perSecond := map[time.Time]int{}
		for _, pause := range rapid.SliceOf(rapid.IntRange(0, 1500)).Draw(t, "pauses") {
			now = now.Add(time.Duration(pause) * time.Millisecond)
			lost := rapid.Uint64Range(0, 3).Draw(t, "lost")
			came += 1 + lost
			if n, ok := b.take(now, rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "namespace"),
				lost); ok {
				logged++
				leftOut += n
				perSecond[b.since]++
			}
		}
		if logged+leftOut+b.leftOut != came {
			t.Fatalf("%d came, %d logged, %d left out, %d to be said", came, logged, leftOut,
				b.leftOut)
		}
		for since, n := range perSecond {
			if n > b.most {
				t.Fatalf("%d lines in the second from %s", n, since)
			}
		}
	})
}

// TestLinesAreShared: however many packets one namespace's pods are denied, there are lines left
// for another's.
func TestLinesAreShared(t *testing.T) {
	t.Parallel()
	now, b := time.Unix(1000, 0), denialBudget{most: linesPerSecond}
	lines := map[string]int{}
	for _, namespace := range []string{"flood", "other flood", "quiet"} {
		for range 1000 {
			if _, ok := b.take(now, namespace, 0); ok {
				lines[namespace]++
			}
		}
	}
	if lines["flood"] < linesPerSecond/2 || lines["other flood"] < linesPerSecond/4 ||
		lines["quiet"] < linesPerSecond/8 {
		t.Errorf("lines: %v", lines)
	}
}

// TestDenialLineOfWhatHasChanged: the cluster is asked a moment after the packet, so its pod may be
// gone, or allowed to.
func TestDenialLineOfWhatHasChanged(t *testing.T) {
	t.Parallel()
	r := nflog.Record{Packet: nflog.Packet{
		Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"),
		Protocol: policy.ProtocolUDP, Fragment: true,
	}}
	for want, a := range map[string]cluster.Answer{
		"[direction egress source 10.0.0.1 destination 10.0.0.2 protocol UDP fragment true leftOutBefore 3]": {Allowed: true},
		"[direction egress source 10.0.0.1 sourcePod / destination 10.0.0.2 protocol UDP fragment true allowedNow true leftOutBefore 3]": {
			Allowed: true, Egress: &cluster.Decision{Allowed: true},
		},
	} {
		if got := fmt.Sprint(denialLine(policy.Egress, &r, a, 3)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
