package enforcer

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
	"github.com/sluice-net/sluice/internal/processortime"
	"github.com/sluice-net/sluice/policy/cluster"
)

// Cutter cuts connections that policy denies now: the ruleset lets packets of established
// connections pass without a look at policy. After a commit, Cutter judges the connections that the
// change may concern. It sets a bit in the label of denied connections, by which the ruleset knows
// them, and clears the bit of cut connections that are allowed again. It runs beside commits and
// doesn't hold them up.
type Cutter struct {
	enforcer *Enforcer
	opts     CutterOptions
	label    uint8         // the bit that says what is cut
	wake     chan struct{} // holds a token while there may be something to do

	// noted is what changes concern that aren't committed yet; it is guarded by the Enforcer's
	// lock.
	noted cluster.Affected

	mu       sync.Mutex
	affected cluster.Affected // by commits since Run looked last

	// Of Run alone:
	agenda agenda
	began  bool // something was on the agenda
	// cut are the ends of connections that the last look at one of their ends found cut.
	cut cluster.Ends
}

// CutterOptions are what a Cutter depends on.
type CutterOptions struct {
	// Off: nothing is cut, and the start restores what was cut.
	Off bool
	// do runs a function in the node's network namespace; nil: as it is.
	do func(func() error) error
	// Log gets what fails, and at verbosity 1 what is done.
	Log logr.Logger
}

// NewCutter returns a Cutter that the Enforcer calls at each commit. It must be called before the
// Enforcer runs.
func NewCutter(e *Enforcer, opts CutterOptions) *Cutter {
	if opts.do == nil {
		opts.do = func(f func() error) error { return f() }
	}
	c := &Cutter{enforcer: e, opts: opts, label: e.model.cutBit(), wake: make(chan struct{}, 1),
		cut: cluster.Ends{}}
	e.cutter = c
	return c
}

// note records which connections changes of the model concern, or those of every pod of the node,
// as the first changes do. A new pod on a veth of ours has none: ADD forgets the connections of its
// addresses. note is called with the Enforcer's lock held.
func (c *Cutter) note(m *Model, changes cluster.Changes, all bool, enforced map[string]struct{}) {
	if c == nil {
		return
	}
	if all {
		changes = m.All()
	} else {
		changes.Endpoints = slices.DeleteFunc(slices.Clone(changes.Endpoints),
			func(id string) bool {
				_, isEnforced := enforced[id]
				now, _ := m.Endpoint(id)
				return !isEnforced && now.Interface != ""
			})
	}
	c.noted.Add(m.Affected(changes))
}

// committed says that all noted changes are in the kernel. It is called with the Enforcer's lock
// held.
func (c *Cutter) committed() {
	if c == nil || c.noted.Empty() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.affected.Add(c.noted)
	c.noted = cluster.Affected{}
	select {
	case c.wake <- struct{}{}:
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
		c.enforcer.opts.Metrics.sweepErrors.Inc()
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

// interrupt looks during another look, if a look is due that doesn't wait for that one.
func (c *Cutter) interrupt(underWay kind) (took time.Duration) {
	c.plan()
	if l, _ := c.agenda.nextBefore(time.Now(), underWay); len(l.ends) > 0 {
		took = c.carryOut(l)
	}
	return took
}

// plan puts the ends that commits noted on the agenda. Connections that can only have become
// allowed matter if they are cut.
func (c *Cutter) plan() {
	c.mu.Lock()
	affected := c.affected
	c.affected = cluster.Affected{}
	c.mu.Unlock()
	if affected.Empty() || c.opts.Off && c.began {
		return
	}
	c.began = true
	ends := affected.Loosened.Both(c.cut)
	ends.Add(affected.Tightened)
	c.agenda.filtersIPv6 = conntrack.FiltersIPv6()
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

// sweep cuts or restores the connections with one of these ends as policy says, and returns its
// processor time. It leaves a crowd's connections as they are, unless the look is about crowds, and
// returns the crowded ends.
func (c *Cutter) sweep(l look) (cost time.Duration, crowd cluster.Ends, err error) {
	began, ends := time.Now(), l.ends
	var cut, restored int
	var others time.Duration // that other looks took meanwhile
	err = c.opts.do(func() error {
		runtime.LockOSThread() // whose time is taken
		defer runtime.UnlockOSThread()
		before := processortime.Used(unix.RUSAGE_THREAD)
		defer func() { cost = processortime.Used(unix.RUSAGE_THREAD) - before - others }()
		table, err := conntrack.Open()
		if err != nil {
			return err
		}
		defer table.Close()
		own, err := OwnAddresses()
		if err != nil {
			return err
		}
		entries, err := table.Find(queriesFor(ends), func(e *conntrack.Entry) bool {
			return ends.Has(e.Orig.Src, e.Reply.Src)
		})
		if err != nil {
			return err
		}
		if l.kind != crowds {
			crowd = crowdsOf(entries, ends)
			ends.Remove(crowd)
			entries = slices.DeleteFunc(entries, func(e conntrack.Entry) bool {
				return !ends.Has(e.Orig.Src, e.Reply.Src)
			})
		}
		c.cut.Remove(ends)
		const atOnce = 1000 // judged with the lock held, 1 ms or so
		for some := range slices.Chunk(entries, atOnce) {
			n, m, err := c.enforce(table, some, c.enforcer.judge(own, some))
			cut, restored = cut+n, restored+m
			if err != nil {
				return err
			}
			// An entry that is cut or restored here may stand in entries in its earlier state: then
			// it is only counted twice.
			others += c.interrupt(l.kind)
		}
		return nil
	})
	c.enforcer.opts.Metrics.flowsCut.Add(float64(cut))
	c.enforcer.opts.Metrics.flowsRestored.Add(float64(restored))
	c.enforcer.opts.Metrics.sweepSeconds.Observe(time.Since(began).Seconds())
	c.opts.Log.V(1).Info("Looked through connections", "addresses", len(ends), "cut", cut,
		"restored", restored, "took", time.Since(began).String())
	return cost, crowd, err
}

// crowdsOf returns the ends with so many connections that others must not wait for them.
func crowdsOf(entries []conntrack.Entry, ends cluster.Ends) cluster.Ends {
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
	crowd := cluster.Ends{}
	for addr, n := range count {
		if n > many {
			crowd[addr] = ends[addr]
		}
	}
	return crowd
}

func queriesFor(ends cluster.Ends) []conntrack.Query {
	var out []conntrack.Query
	for a, role := range ends {
		if role&cluster.AsSource != 0 {
			out = append(out, conntrack.OpenedBy(a))
		}
		if role&cluster.AsDestination != 0 {
			out = append(out, conntrack.AnsweredBy(a))
		}
	}
	return out
}

// OwnAddresses lists the node's addresses. Packets from these aren't forwarded, and aren't judged.
func OwnAddresses() ([]netip.Addr, error) {
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

// enforce cuts and restores connections as judged, and counts them.
func (c *Cutter) enforce(table *conntrack.Table, entries []conntrack.Entry,
	allowed []bool) (cut, restored int, err error) {
	for i := range entries {
		e := &entries[i]
		isCut, allowed := e.Labels.Has(c.label), allowed[i] || c.opts.Off
		if !allowed {
			c.cut[e.Orig.Src] |= cluster.AsSource
			c.cut[e.Reply.Src] |= cluster.AsDestination
		}
		if isCut != allowed {
			continue
		}
		err := table.SetLabel(e, c.label, !allowed)
		if errors.Is(err, conntrack.ErrNoRoom) {
			// The connection is older than this table's first version, so its entry has to go: its
			// further packets are judged as new.
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
