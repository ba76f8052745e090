package reach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// Options are a Prober's settings.
type Options struct {
	Own string // the node's name
	// the node's; nil: that of the process. The caller keeps it open while Run runs
	NetNS    ns.NetNS
	Interval time.Duration // between questions to a peer that answers; zero: DefaultInterval
	OnReport func(Report)  // called every second by Run's goroutine
}

// Report is what is known so far.
type Report struct {
	Peers []PeerState // by name

	// Heard is when a packet of any kind was last seen to come in through the tunnel; the zero
	// Time: not yet.
	Heard time.Time

	// Answer is when a peer answered last; the zero Time: not yet.
	Answer time.Time

	// How many questions were answered, were not answered, and couldn't be sent, since the start.
	Answered, Unanswered, Unsent uint64

	// Err is why no peer can be asked.
	Err error
}

// Prober asks peers through the tunnel. Set may be called at any time; Run runs once.
type Prober struct {
	options Options

	mu     sync.Mutex
	device string
	peers  []Peer
	set    bool // since Run looked last

	// Of Run's goroutine.
	rotation *Rotation
	link     *netlinksafe.Handle
	sockets  *sockets
	index    int // of the link that the sockets are for
	answers  chan heard
	received uint64 // packets, by the link's counter
	report   Report
}

// New makes a Prober that asks no peer before Run and Set.
func New(o Options) *Prober {
	return &Prober{options: o, rotation: NewRotation(o.Own, o.Interval),
		answers: make(chan heard, 64)}
}

// Set sets the peers to ask, and the device to ask by. Without a device no peer is asked.
func (p *Prober) Set(device string, peers []Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.device, p.peers, p.set = device, slices.Clone(peers), true
}

// Run asks until ctx ends. It returns an error if it can't start.
func (p *Prober) Run(ctx context.Context) error {
	err := p.do(func() error {
		h, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
		p.link = &h
		return err
	})
	if err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	defer p.link.Close()
	defer p.close()
	tick := time.NewTicker(p.rotation.gap)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-p.answers:
			p.take(a)
		case <-tick.C:
			p.drain()
			p.pass(time.Now())
		}
	}
}

// do runs f on a thread in the node's network namespace.
func (p *Prober) do(f func() error) error {
	if p.options.NetNS == nil {
		return f()
	}
	return p.options.NetNS.Do(func(ns.NetNS) error { return f() })
}

func (p *Prober) take(h heard) {
	if p.rotation.Take(h.at, h.Answer) {
		p.report.Answered++
		p.report.Answer = h.at
	}
}

// drain takes the answers that have come: our delay must not make a peer silent.
func (p *Prober) drain() {
	for {
		select {
		case a := <-p.answers:
			p.take(a)
		default:
			return
		}
	}
}

// pass asks the peers that are due, and reports.
func (p *Prober) pass(now time.Time) {
	p.mu.Lock()
	device, peers, set := p.device, p.peers, p.set
	p.set = false
	p.mu.Unlock()
	if set {
		p.rotation.Set(peers)
	}
	p.report.Err = p.open(now, device)
	ask, unanswered := p.rotation.Ask(now)
	p.report.Unanswered += uint64(unanswered)
	for _, to := range ask {
		err := errNotOpen
		if p.sockets != nil {
			err = p.sockets.ask(to)
		}
		if err != nil {
			p.rotation.Unsent(now, to)
			p.report.Unsent++
		}
	}
	p.report.Peers = p.rotation.States()
	if p.options.OnReport != nil {
		p.options.OnReport(p.report)
	}
}

var errNotOpen = errors.New("there is no socket")

// open opens sockets on the device as it is now, unless they are there, and notes the device's
// received packets.
func (p *Prober) open(now time.Time, device string) error {
	if device == "" {
		p.close()
		return nil
	}
	tunnel, err := p.link.LinkByName(device)
	if err != nil {
		p.close()
		return fmt.Errorf("looking for %s: %w", device, err)
	}
	attrs := tunnel.Attrs()
	p.hear(now, attrs)
	own := link.MAC(append(slices.Clone(attrs.HardwareAddr), make([]byte, macLen)...)[:macLen])
	if p.sockets != nil && p.index == attrs.Index && p.sockets.own == own &&
		!p.sockets.broken.Load() {
		return nil
	}
	p.close()
	return p.do(func() (err error) {
		p.sockets, err = openSockets(attrs.Index, device, own, p.answers)
		p.index = attrs.Index
		return err
	})
}

// hear notes whether a packet has come in since the last time.
func (p *Prober) hear(now time.Time, link *netlink.LinkAttrs) {
	if link.Statistics == nil {
		return
	}
	if received := link.Statistics.RxPackets; received != p.received {
		if received > 0 {
			p.report.Heard = now
		}
		p.received = received
	}
}

func (p *Prober) close() {
	if p.sockets != nil {
		p.sockets.close()
		p.sockets = nil
	}
}
