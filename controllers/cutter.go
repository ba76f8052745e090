package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/policy"
)

// Cutter cuts connections that policy has come to deny: the ruleset lets
// packets of established ones pass unasked. After a commit it judges those
// that the change may concern, and sets a bit of the label of those that are
// denied now, by which the ruleset knows them; of cut ones that are allowed
// again it takes the bit away. It runs beside commits and doesn't hold them up.
type Cutter struct {
	enforcer *Enforcer
	opts     CutterOptions
	label    uint8         // the bit that says what is cut
	wake     chan struct{} // holds a token while there may be something to do

	mu       sync.Mutex
	affected policy.Affected // by commits since Run looked last

	// Of Run alone:
	agenda agenda
	began  bool // something was on the agenda
	// cut are the ends of connections that were found cut when one of their ends was looked at last.
	cut policy.Ends
}

// CutterOptions are what a Cutter depends on.
type CutterOptions struct {
	// Off has it cut nothing, and, at the start, give back what was cut.
	Off bool
	// Do runs a function in the node's network namespace; nil: as it is.
	Do func(func() error) error
	// Log gets what fails, and at verbosity 1 what is done.
	Log logr.Logger
}

// NewCutter returns a Cutter that the Enforcer tells of its commits. It must
// be called before the Enforcer runs.
func NewCutter(e *Enforcer, opts CutterOptions) *Cutter {
	if opts.Do == nil {
		opts.Do = func(f func() error) error { return f() }
	}
	c := &Cutter{enforcer: e, opts: opts, label: e.render.cfg.cutLabel(), wake: make(chan struct{}, 1), cut: policy.Ends{}}
	e.cutter = c
	return c
}

// noteAffected notes which connections changes concern, the first ones those
// of every pod here. A pod that is new on a veth of ours has none: ADD forgets
// those of its addresses. It is called with the lock held.
func (e *Enforcer) noteAffected(changes policy.Changes, first bool) {
	if e.cutter == nil {
		return
	}
	if first {
		changes = e.cluster.All()
	} else {
		changes.Endpoints = slices.DeleteFunc(slices.Clone(changes.Endpoints), func(id string) bool {
			_, enforced := e.enforced[id]
			now, _ := e.cluster.Endpoint(id)
			return !enforced && now.Interface != ""
		})
	}
	e.affected.Add(e.cluster.Affected(changes))
}

// tellCutter says that all that was noted is in the kernel. It is called with
// the lock held.
func (e *Enforcer) tellCutter() {
	if e.cutter == nil || e.affected.Empty() {
		return
	}
	e.cutter.mu.Lock()
	defer e.cutter.mu.Unlock()
	e.cutter.affected.Add(e.affected)
	e.affected = policy.Affected{}
	select {
	case e.cutter.wake <- struct{}{}:
	default:
	}
}

// Run cuts until ctx ends. It must be called once.
func (c *Cutter) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		c.plan()
		look, wait := c.agenda.next(time.Now())
		if len(look.ends) == 0 {
			c.pause(ctx, wait)
			continue
		}
		c.carryOut(look)
	}
	return nil
}

// carryOut looks, and returns the processor time that it took.
func (c *Cutter) carryOut(l look) time.Duration {
	took, crowd, err := c.sweep(l)
	if err != nil {
		c.opts.Log.Error(err, "Connections that policy denies may go on; trying again")
		sweepErrors.Inc()
		c.agenda.add(l.ends)
		took = max(took, failedLook)
	}
	if len(crowd) > 0 {
		c.agenda.crowd(time.Now(), crowd)
		l.kind = crowds // which pay for it
	}
	c.agenda.looked(time.Now(), l, took)
	return took
}

// interrupt makes a look that doesn't wait for the one under way, if one is due.
func (c *Cutter) interrupt(underWay kind) (took time.Duration) {
	c.plan()
	if l, _ := c.agenda.nextBefore(time.Now(), underWay); len(l.ends) > 0 {
		took = c.carryOut(l)
	}
	return took
}

// plan puts what commits said on the agenda. What can only have become
// allowed matters if it is cut.
func (c *Cutter) plan() {
	c.mu.Lock()
	affected := c.affected
	c.affected = policy.Affected{}
	c.mu.Unlock()
	if affected.Empty() || c.opts.Off && c.began {
		return
	}
	c.began = true
	ends := affected.Loosened.Both(c.cut)
	ends.Add(affected.Tightened)
	c.agenda.add(ends)
}

// pause waits for a commit, or as long as said.
func (c *Cutter) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-c.wake:
	case <-timer.C:
	}
}

// sweep brings the connections with one of these ends in line with policy, and
// returns the processor time that it took. Those of a crowd it leaves as they
// are, unless it is about crowds, and says at which ends that is.
func (c *Cutter) sweep(l look) (cost time.Duration, crowd policy.Ends, err error) {
	began, ends := time.Now(), l.ends
	var cut, restored int
	var others time.Duration // that other looks took meanwhile
	err = c.opts.Do(func() error {
		runtime.LockOSThread() // whose time is taken
		defer runtime.UnlockOSThread()
		before := processorTime(unix.RUSAGE_THREAD)
		defer func() { cost = processorTime(unix.RUSAGE_THREAD) - before - others }()
		table, err := conntrack.Open()
		if err != nil {
			return err
		}
		defer table.Close()
		own, err := ownAddresses()
		if err != nil {
			return err
		}
		entries, err := table.Find(queriesFor(ends), func(e *conntrack.Entry) bool { return ends.Has(e.Orig.Src, e.Reply.Src) })
		if err != nil {
			return err
		}
		if l.kind != crowds {
			crowd = crowdsOf(entries, ends)
			ends.Remove(crowd)
			entries = slices.DeleteFunc(entries, func(e conntrack.Entry) bool { return !ends.Has(e.Orig.Src, e.Reply.Src) })
		}
		c.cut.Remove(ends)
		const atOnce = 1000 // judged with the lock held, 1 ms or so
		for some := range slices.Chunk(entries, atOnce) {
			n, m, err := c.enforce(table, some, c.enforcer.judge(own, some))
			cut, restored = cut+n, restored+m
			if err != nil {
				return err
			}
			// What it cuts or restores may be in entries as it was, and is only counted twice.
			others += c.interrupt(l.kind)
		}
		return nil
	})
	flowsCut.Add(float64(cut))
	flowsRestored.Add(float64(restored))
	sweepSeconds.Observe(time.Since(began).Seconds())
	c.opts.Log.V(1).Info("Looked through connections", "addresses", len(ends), "cut", cut, "restored", restored, "took", time.Since(began).String())
	return cost, crowd, err
}

// crowdsOf returns those of the ends that have more connections than others are to wait for.
func crowdsOf(entries []conntrack.Entry, ends policy.Ends) policy.Ends {
	const many = 2000
	if len(entries) <= many {
		return nil
	}
	count := map[netip.Addr]int{}
	for i := range entries {
		source, destination := entries[i].Orig.Src, entries[i].Reply.Src
		if ends.Has(source, netip.Addr{}) {
			count[source]++
		}
		if ends.Has(netip.Addr{}, destination) {
			count[destination]++
		}
	}
	crowd := policy.Ends{}
	for addr, n := range count {
		if n > many {
			crowd[addr] = ends[addr]
		}
	}
	return crowd
}

func queriesFor(ends policy.Ends) []conntrack.Query {
	var out []conntrack.Query
	for a, role := range ends {
		if role&policy.AsSource != 0 {
			out = append(out, conntrack.OpenedBy(a))
		}
		if role&policy.AsDestination != 0 {
			out = append(out, conntrack.AnsweredBy(a))
		}
	}
	return out
}

// ownAddresses lists the node's addresses: what it sends from any of them is
// no forwarded packet, and not judged.
func ownAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out, nil
}

// judge says of each connection whether policy allows it now. The original
// destination may be a Service; who answers is the one that policy means.
func (e *Enforcer) judge(own []netip.Addr, entries []conntrack.Entry) []bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	judge := e.cluster.NewJudge(own)
	allowed := make([]bool, len(entries))
	for i := range entries {
		orig, reply := &entries[i].Orig, &entries[i].Reply
		allowed[i] = judge.Allows(policy.Flow{Source: orig.Src, Destination: reply.Src, Protocol: orig.Proto, Port: reply.SrcPort})
	}
	return allowed
}

// enforce cuts and restores connections as judged, and counts them.
func (c *Cutter) enforce(table *conntrack.Table, entries []conntrack.Entry, allowed []bool) (cut, restored int, err error) {
	for i := range entries {
		e := &entries[i]
		isCut, allowed := e.Labels.Has(c.label), allowed[i] || c.opts.Off
		if !allowed {
			c.cut[e.Orig.Src] |= policy.AsSource
			c.cut[e.Reply.Src] |= policy.AsDestination
		}
		if isCut != allowed {
			continue
		}
		err := table.SetLabel(e, c.label, !allowed)
		if errors.Is(err, conntrack.ErrNoRoom) {
			// Older than this table's first version, so it has to go: what is left of it is judged as new.
			err = table.Delete(e)
		}
		if err != nil {
			return cut, restored, err
		}
		if allowed {
			restored++
		} else {
			cut++
		}
	}
	return cut, restored, nil
}
