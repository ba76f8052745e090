package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/probe"
)

// What "watch" expects of its targets.
const (
	expectOK      = "ok"
	expectRefused = "refused" // silence or a reset: nothing else is a denial
)

// watch tries every target again and again until ctx ends, and says what wasn't as expected.
func watch(ctx context.Context, args []string, out *printer) error {
	var targets targetList
	flags := flag.NewFlagSet("watch", flag.ContinueOnError)
	flags.Var(&targets, "target", "where to connect; may be repeated")
	every := flags.Duration("every", 100*time.Millisecond,
		"time from one attempt's start to the next one's")
	timeout := flags.Duration("timeout", time.Second, "how long an attempt waits for an answer")
	expect := flags.String("expect", expectOK, "ok, or refused: what an attempt should be")
	lasting := flags.Bool("lasting", false,
		"keep one connection and ask over it, instead of a new one each time")
	settle := flags.Duration("settle", 0,
		"until every target was as expected once, don't count; wait for that so long at most")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case len(targets) == 0 || flags.NArg() > 0:
		return errors.New("expected --target, and no further arguments")
	case *expect != expectOK && *expect != expectRefused:
		return fmt.Errorf("expected ok or refused, got %q", *expect)
	case *lasting && *expect != expectOK:
		return errors.New("a connection that is refused can't be lasting")
	case *every <= 0 || *timeout <= 0:
		return errors.New("expected times above zero")
	}
	var all sync.WaitGroup
	ports := newSourcePorts()
	settled := make(chan struct{})
	var unsettled sync.WaitGroup
	for _, target := range targets {
		w := &watcher{target: target, every: *every, timeout: *timeout,
			refused: *expect == expectRefused, ports: ports, out: out}
		unsettled.Add(1)
		all.Go(func() {
			if *settle > 0 {
				w.settle(ctx, *settle)
			}
			unsettled.Done()
			<-settled
			w.run(ctx, *lasting)
		})
	}
	unsettled.Wait()
	out.report(testprogram.Report{Watching: true})
	close(settled)
	all.Wait()
	return nil
}

// watcher watches one target.
type watcher struct {
	target  testprogram.Target
	every   time.Duration
	timeout time.Duration
	refused bool // what is expected
	ports   *sourcePorts
	out     *printer

	mu      sync.Mutex
	summary testprogram.Summary // of what has ended since the last one
}

// settle waits until an attempt is as expected, for up to the given time.
func (w *watcher) settle(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for !w.expected(w.attempt(ctx)) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// run watches until ctx ends, and prints a summary every second and at the end.
func (w *watcher) run(ctx context.Context, lasting bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if lasting {
			w.ask(ctx)
		} else {
			w.connect(ctx)
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.summarize()
		case <-done:
			w.summarize()
			return
		}
	}
}

func (w *watcher) attempt(ctx context.Context) testprogram.Result {
	if w.target.Protocol != testprogram.TCP {
		return attempt(ctx, w.target, w.timeout)
	}
	return attempt(ctx, w.target, w.timeout, probe.FromPort(w.ports.next()))
}

// sourcePorts gives each connection over TCP a port that none had for as long as the kernel
// remembers one that wasn't answered (two minutes). What has the port of such a one goes to the pod
// that kube-proxy chose then, by which nothing can be learned of policies: that pod may be gone.
type sourcePorts struct{ given atomic.Uint32 }

// Ports of clients' own network namespace, where nothing else listens. At thousands of connections
// a minute they last for more than two.
const firstSourcePort, sourcePortCount = 10_000, 50_000

// newSourcePorts begins anywhere: another process in this namespace may have given some out a
// moment ago.
func newSourcePorts() *sourcePorts {
	p := &sourcePorts{}
	p.given.Store(rand.Uint32N(sourcePortCount))
	return p
}

func (p *sourcePorts) next() uint16 {
	return uint16(firstSourcePort + (p.given.Add(1)-1)%sourcePortCount)
}

// connect starts a new connection at every tick, without waiting for those before it: the refused
// ones take their whole timeout.
func (w *watcher) connect(ctx context.Context) {
	// Attempts outlive ctx: each is finished and counted.
	lasting := context.WithoutCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for ctx.Err() == nil {
		all.Go(func() {
			at := time.Now()
			w.count(at, w.attempt(lasting))
		})
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// count takes an attempt that began at this time into the summary, and prints it if it isn't as
// expected.
func (w *watcher) count(at time.Time, result testprogram.Result) {
	w.mu.Lock()
	w.summary.Attempts++
	if result.OK {
		w.summary.Succeeded++
	}
	w.mu.Unlock()
	if !w.expected(result) {
		w.out.report(testprogram.Report{Attempt: &testprogram.Attempt{Result: result, At: at,
			Seconds: time.Since(at).Seconds()}})
	}
}

func (w *watcher) expected(result testprogram.Result) bool {
	if w.refused {
		return result.Kind.Denied()
	}
	return result.OK
}

func (w *watcher) summarize() {
	w.mu.Lock()
	summary := w.summary
	w.summary = testprogram.Summary{}
	w.mu.Unlock()
	summary.At, summary.Target = time.Now(), w.target.String()
	w.out.report(testprogram.Report{Summary: &summary})
}
