package main

import (
	"testing"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

const dropPort80 = `table inet t {
	chain forward {
		type filter hook forward priority 0;
		th dport 80 counter drop
	}
}`

func TestFirst(t *testing.T) {
	t.Parallel()
	node, client, server := twoPods(t)
	start(t, server, "serve", "--serve", "tcp/80", "--serve", "udp/80", "--serve", "tcp/81").
		awaitServing()
	args := []string{
		"first", "--denied", "tcp://10.0.0.3:80", "--denied", "udp://[fd00::3]:80", "--control",
		"tcp://[fd00::3]:81",
		"--control", "tcp://10.0.0.3:81",
	}
	open := output[testprogram.Report](t, client, args...)
	node.NftInput(dropPort80)
	denied := output[testprogram.Report](t, client, args...)
	if open.First == nil || denied.First == nil || len(open.First.Denied) != 2 ||
		len(denied.First.Control) != 2 {
		t.Fatalf("got %+v and %+v", open, denied)
	}
	for i := range 2 {
		if was := open.First.Denied[i]; !was.OK || was.Attempts == 0 {
			t.Errorf("with nothing denied: got %+v", was)
		}
		// One every 20 ms for a second are 50; a busy machine's ticker drops some.
		if was := denied.First.Denied[i]; was.OK || was.Kind != testprogram.Timeout ||
			was.Attempts < 10 || was.Attempts > 51 {
			t.Errorf("with port 80 denied: got %+v", was)
		}
		if was := denied.First.Control[i]; !was.OK || was.Seconds <= 0 {
			t.Errorf("control: got %+v", was)
		}
	}
}

func TestFirstStays(t *testing.T) {
	t.Parallel()
	_, client, _ := twoPods(t)
	staying := start(t, client, "first", "--stay", "--for", "10ms", "--denied",
		"tcp://10.99.0.1:80")
	report := staying.await("the outcome", func(r testprogram.Report) bool {
		return r.First != nil
	})
	if got := report.First.Denied[0]; got.OK || got.Kind != testprogram.Unreachable {
		t.Errorf("without a route: got %+v", got)
	}
	staying.terminate()
	if err := staying.wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	node, client, server := twoPods(t)
	args := []string{"--every", "20ms", "--timeout", "300ms", "--target", "tcp://10.0.0.3:80",
		"--target", "udp://[fd00::3]:80"}
	settling := start(t, client, append([]string{"watch", "--settle", "20s"}, args...)...)
	start(t, server, "serve", "--serve", "tcp/80", "--serve", "udp/80").awaitServing()
	settling.await("watching", func(r testprogram.Report) bool { return r.Watching })
	for range 2 {
		got := settling.await("summary", func(r testprogram.Report) bool {
			return r.Attempt != nil || r.Summary != nil
		})
		if got.Summary == nil || got.Summary.Attempts == 0 ||
			got.Summary.Succeeded != got.Summary.Attempts {
			t.Errorf("with everything open: got %+v, %+v", got.Attempt, got.Summary)
		}
	}

	refusing := start(t, client, append([]string{"watch", "--expect", "refused"}, args...)...)
	got := refusing.await("attempt", func(r testprogram.Report) bool { return r.Attempt != nil })
	if !got.Attempt.OK || got.Attempt.Kind != testprogram.OK || got.Attempt.Reply == "" ||
		got.Attempt.At.IsZero() {
		t.Errorf("an open target that should be refused: got %+v", got.Attempt)
	}
	refusing.rest()

	node.NftInput(dropPort80)
	got = settling.await("attempt", func(r testprogram.Report) bool { return r.Attempt != nil })
	if got.Attempt.OK || got.Attempt.Kind != testprogram.Timeout || got.Attempt.Seconds < 0.3 {
		t.Errorf("a target that is denied since: got %+v", got.Attempt)
	}

	refused := start(t, client, append([]string{"watch", "--expect", "refused"}, args...)...)
	attempts := 0
	refused.await("summary of 10", func(r testprogram.Report) bool {
		if r.Summary != nil {
			attempts += r.Summary.Attempts - r.Summary.Succeeded
		}
		return attempts >= 10
	})
	for _, report := range refused.rest() {
		if report.Attempt != nil {
			t.Errorf("refused as expected, but got %+v", report.Attempt)
		}
	}
}

// No connection has the port of one before it, which the kernel may remember.
func TestWatchTakesAnotherPortEachTime(t *testing.T) {
	t.Parallel()
	_, client, server := twoPods(t)
	serving := start(t, server, "serve", "--serve", "tcp/80", "--report-peers").awaitServing()
	start(t, client, "watch", "--every", "10ms", "--target", "tcp://10.0.0.3:80", "--target",
		"tcp://[fd00::3]:80")
	nextPort := func() int {
		return int(serving.await("peer", func(r testprogram.Report) bool {
			return r.Peer != nil
		}).Peer.From.Port())
	}
	first, seen := nextPort(), map[int]bool{}
	for range 50 {
		port := nextPort()
		// One after the other, but for those that are tried, or arrive, at the same time.
		far := (port - first + 10 + sourcePortCount) % sourcePortCount
		if seen[port] || port == first || far > 100 {
			t.Errorf("port %d, %d others after %d; seen: %v", port, len(seen), first, seen[port])
		}
		seen[port] = true
	}

	ports, given := newSourcePorts(), map[uint16]bool{}
	for range sourcePortCount {
		given[ports.next()] = true
	}
	if len(given) != sourcePortCount {
		t.Errorf("%d different ports of %d", len(given), sourcePortCount)
	}
}

func TestWatchLasting(t *testing.T) {
	t.Parallel()
	node, client, server := twoPods(t)
	serving := start(t, server, "serve", "--linger", "0s", "--serve", "tcp/80", "--serve",
		"udp/81").awaitServing()
	watching := start(t, client, "watch", "--lasting", "--settle", "20s", "--every", "20ms",
		"--timeout", "300ms",
		"--target", "tcp://10.0.0.3:80", "--target", "udp://[fd00::3]:81")
	for range 2 {
		got := watching.await("summary", func(r testprogram.Report) bool {
			return r.Break != nil || r.Summary != nil
		})
		if got.Summary == nil || got.Summary.Succeeded == 0 ||
			got.Summary.Succeeded != got.Summary.Attempts {
			t.Errorf("nothing was in the way: got %+v, %+v", got.Break, got.Summary)
		}
	}

	// Silence for less than the flow's patience: the same connection goes on.
	node.NftInput(dropPort80)
	watching.await("silence", func(r testprogram.Report) bool {
		return r.Attempt != nil && r.Attempt.Kind == testprogram.Timeout
	})
	node.Nft("delete", "table", "inet", "t")
	got := watching.await("break", func(r testprogram.Report) bool { return r.Break != nil })
	if got.Break.Reconnected || got.Break.Lasts || got.Break.Target != "tcp://10.0.0.3:80" ||
		got.Break.Seconds < 0.3 {
		t.Errorf("after silence: got %+v", got.Break)
	}

	// The server goes, and another comes: both connections are new.
	serving.terminate()
	if err := serving.wait(); err != nil {
		t.Error(err)
	}
	watching.await("reset", func(r testprogram.Report) bool {
		return r.Attempt != nil && r.Attempt.Kind == testprogram.Reset
	})
	serving = start(t, server, "serve", "--linger", "0s", "--serve", "tcp/80", "--serve", "udp/81").
		awaitServing()
	got = watching.await("break", func(r testprogram.Report) bool {
		return r.Break != nil && r.Break.Target == "tcp://10.0.0.3:80"
	})
	if !got.Break.Reconnected || got.Break.Lasts {
		t.Errorf("after another server came: got %+v", got.Break)
	}
	serving.terminate()
	watching.await("reset", func(r testprogram.Report) bool {
		return r.Attempt != nil && r.Attempt.Kind == testprogram.Reset
	})
	lasts := 0
	for _, report := range watching.rest() {
		if report.Break != nil && report.Break.Lasts {
			lasts++
		}
	}
	if lasts == 0 {
		t.Error("a break that was there at the end wasn't reported")
	}
}
