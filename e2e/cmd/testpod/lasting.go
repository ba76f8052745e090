package main

import (
	"context"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/probe"
)

// patience is how many questions in a row may stay without an answer before the connection is given
// up for a new one.
const patience = 5

// ask keeps one connection and has an answer over it at every tick. It reports each question that
// had none, and each break.
func (w *watcher) ask(ctx context.Context) {
	lasting := context.WithoutCancel(ctx)
	conn := &connection{watcher: w}
	defer conn.close()
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for ctx.Err() == nil {
		conn.ask(lasting)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if conn.broken != nil {
		conn.broken.Lasts = true
		conn.reportBreak()
	}
}

// connection is a lasting connection and what became of it.
type connection struct {
	watcher *watcher
	flow    *probe.Flow // nil: none at the moment
	silent  int         // questions in a row without an answer
	broken  *testprogram.Break
}

// ask asks once, over a new connection if there is none.
func (c *connection) ask(ctx context.Context) {
	at := time.Now()
	target := c.watcher.target
	err := c.echo(ctx)
	if err == nil {
		c.watcher.count(at,
			testprogram.Result{Target: target.String(), OK: true, Kind: testprogram.OK})
		if c.broken != nil {
			c.reportBreak()
		}
		return
	}
	result := failed(target, err)
	c.watcher.count(at, result)
	if c.broken == nil {
		c.broken = &testprogram.Break{Target: target.String(), At: at, Error: result.Error}
	}
	c.silent++
	if c.flow != nil && (result.Kind != testprogram.Timeout || c.silent >= patience) {
		c.close()
		c.broken.Reconnected = true
	}
}

// echo has one answer; a new connection begins with one.
func (c *connection) echo(ctx context.Context) error {
	if c.flow != nil {
		return c.flow.Echo()
	}
	c.silent = 0
	target, timeout := c.watcher.target, c.watcher.timeout
	addr, err := address(ctx, target, timeout)
	if err != nil {
		return err
	}
	c.flow, err = probe.Open(probe.Protocol(target.Protocol), addr, probe.WithTimeout(timeout),
		probe.Within(0))
	return err
}

// reportBreak prints the break, which is over unless it lasts.
func (c *connection) reportBreak() {
	c.broken.Seconds = time.Since(c.broken.At).Seconds()
	c.watcher.out.report(testprogram.Report{Break: c.broken})
	c.broken = nil
}

func (c *connection) close() {
	if c.flow != nil {
		c.flow.Close()
	}
	c.flow = nil
}
