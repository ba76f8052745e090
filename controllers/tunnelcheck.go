package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/nft/others"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/overlay/reach"
)

// TunnelCheck finds out whether the tunnel carries packets to other nodes and back, and reports it
// in the log, by Events and by metrics. Its methods may be called from several goroutines, and the
// Set methods also on nil.
type TunnelCheck struct {
	node     string
	interval time.Duration
	events   notify.NodeEvents
	metrics  *Metrics
	log      logr.Logger
	prober   *reach.Prober
	blockers func(others.Hook) ([]others.Blocker, error)
	now      func() time.Time

	mu    sync.Mutex
	ready map[string]time.Time // nodes, and since when
	state NetworkState

	// Of Run's goroutine.
	last     reach.Report
	reported reportedTunnel
	unable   struct { // to ask any node
		since    time.Time
		reported bool
	}
}

// reportedTunnel is what was reported last.
type reportedTunnel struct {
	tunnelVerdict
	at     time.Time
	public bool // by an Event, since the trouble began
}

// NewTunnelCheck returns one for a node that asks each peer once in an interval. The metrics may be
// nil.
func NewTunnelCheck(
	node string, interval time.Duration, events notify.NodeEvents, metrics *Metrics,
	log logr.Logger,
) *TunnelCheck {
	t := &TunnelCheck{
		node: node, interval: interval, events: events, metrics: metrics, log: log,
		ready:    map[string]time.Time{},
		blockers: others.Blockers, now: time.Now,
	}
	t.prober = reach.New(reach.Options{Own: node, Interval: interval, OnReport: t.look})
	return t
}

// grace is how long a trouble has to last to be reported: a minute by default.
func (t *TunnelCheck) grace() time.Duration { return 2 * t.interval }

// setNode sets whether a node is ready; a node that doesn't exist isn't.
func (t *TunnelCheck) setNode(name string, ready bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, was := t.ready[name]; ready && !was {
		t.ready[name] = t.now()
	} else if !ready {
		delete(t.ready, name)
	}
}

// SetState takes in what came of the network's last pass. While the network isn't as it should be,
// the same nodes as before are asked.
func (t *TunnelCheck) SetState(s NetworkState) {
	if t == nil || !s.Ready {
		return
	}
	t.mu.Lock()
	t.state = s
	t.mu.Unlock()
	t.prober.Set(s.Tunnel, throughTunnel(s.Peers))
}

// throughTunnel lists the peers that the tunnel leads to, each with one address of its tunnel
// device: IPv4, if it has one.
func throughTunnel(peers []overlay.Peer) (out []reach.Peer) {
	for _, p := range peers {
		var addr netip.Addr
		for _, cidr := range p.PodCIDRs {
			if slices.Contains(p.Direct, cidr) || addr.IsValid() && !cidr.Addr().Is4() {
				continue
			}
			addr = cidr.Addr()
		}
		if addr.IsValid() {
			out = append(out, reach.Peer{Name: p.Name, MAC: overlay.TunnelMAC(p.Name), Addr: addr})
		}
	}
	return out
}

// Run asks until ctx ends.
func (t *TunnelCheck) Run(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.prober.Run(ctx)
}

// look takes in the present state of the peers.
func (t *TunnelCheck) look(r reach.Report) {
	now := t.now()
	t.mu.Lock()
	counts, verdict := judgeTunnel(r, t.ready, now, t.grace())
	// those that are reached without the tunnel
	counts.untried += max(len(t.state.Peers)-len(r.Peers), 0)
	state := t.state
	t.mu.Unlock()
	t.metrics.noteTunnel(counts)
	t.metrics.countProbes(t.last, r)
	t.last = r
	t.noteError(now, r.Err)
	t.report(now, verdict, counts, state)
}

// noteError logs why no node can be asked, once that has lasted.
func (t *TunnelCheck) noteError(now time.Time, err error) {
	u := &t.unable
	switch {
	case err == nil:
		u.since, u.reported = time.Time{}, false
	case u.since.IsZero():
		u.since = now
	case !u.reported && now.Sub(u.since) >= t.grace():
		u.reported = true
		t.log.Error(err, "Other nodes can't be asked through the tunnel")
	}
}

// report reports a trouble when it begins, when it changes, and when it is over. Silent nodes that
// come and go change a trouble only now and then.
func (t *TunnelCheck) report(now time.Time, v tunnelVerdict, n tunnelCounts, state NetworkState) {
	if v.trouble == noTrouble {
		t.reportEnd(n)
		return
	}
	const rarely = 10 // times grace
	public := reportsTunnel(t.node, v, t.last)
	// public by now: the nodes that reported may be gone
	if v.same(t.reported.tunnelVerdict) && (t.reported.public || !public) {
		return
	}
	wait := t.grace()
	if v.trouble == t.reported.trouble && (t.reported.public || !public) {
		wait *= rarely
	}
	if t.reported.trouble != noTrouble && now.Sub(t.reported.at) < wait {
		return
	}
	note := v.note(t.place(v, state), t.grace())
	t.log.Info("The tunnel doesn't carry packets as it should", "silent", len(v.silent), "of",
		v.asked, "what", note)
	if public {
		t.events.Warn("TunnelBlocked", note)
	}
	t.reported = reportedTunnel{v, now, public || t.reported.public}
}

func (t *TunnelCheck) reportEnd(n tunnelCounts) {
	if t.reported.trouble == noTrouble {
		return
	}
	t.log.Info("No node is silent through the tunnel any more", "answering", n.answering)
	if t.reported.public {
		t.events.Say("TunnelPasses",
			fmt.Sprintf("no node that is ready is silent through the tunnel; %d answer",
				n.answering))
	}
	t.reported = reportedTunnel{}
}

// place is where the tunnel is, with the chains that may be to blame.
func (t *TunnelCheck) place(v tunnelVerdict, s NetworkState) tunnelPlace {
	named := func(h others.Hook) string {
		found, err := t.blockers(h)
		if err != nil {
			t.log.Error(err, "Others' chains can't be read", "hook", h.String())
		}
		return others.Named(found, s.Local.Is4())
	}
	p := tunnelPlace{port: s.Config.Port, link: s.Device}
	switch v.trouble {
	case nothingIn:
		p.in = named(others.Input)
	case allSilent:
		p.out = named(others.Output)
	case noTrouble, someSilent:
	}
	return p
}
