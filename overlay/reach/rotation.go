package reach

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/link"
)

// Peer is another node at the other end of the tunnel.
type Peer struct {
	Name string
	MAC  link.MAC   // of its tunnel device
	Addr netip.Addr // of its tunnel device; IPv4 if it has such a one
}

// State is what is known of a peer.
type State uint8

// The states of peers. One that answered may miss some questions before it counts as silent.
const (
	Untried   State = iota // it wasn't asked often enough, or can't be
	Answering              // the tunnel carries packets there and back
	Silent                 // it didn't answer, several times in a row
)

// Limits of a Rotation.
const (
	DefaultInterval = 30 * time.Second

	// PerSecond bounds a node's questions in a second. With 1,500 peers each is asked about every
	// three minutes, and every seven at the worst.
	PerSecond = 8

	longestAnswer = 2 * time.Second // how long an answer may take
	tries         = 3               // unanswered in a row: silent
)

// Rotation decides which peer is asked when. It has no clock: times are its caller's, and don't go
// back. It isn't safe for concurrent use.
//
// A peer that answers is asked once in an interval, one that has missed a question after a sixth of
// it, and one that is silent after a third, but never more than PerSecond a second: the peer that
// is due longest goes first, so that with many peers, in any states, each has its turn. Half of the
// questions go first to peers in doubt, which have missed one or two, so that silent peers are soon
// known.
type Rotation struct {
	interval time.Duration
	patience time.Duration // for an answer
	gap      time.Duration // between questions, of which there are PerSecond at once
	own      string
	peers    map[netip.Addr]*peer
	byName   []*peer
	last     time.Time // of the last questions
}

type peer struct {
	Peer
	turn   int // among those that are due alike
	state  State
	since  time.Time // of state
	due    time.Time // when to ask it next
	asked  time.Time // the zero Time: no answer is awaited
	missed int       // answers, in a row
	unsent int       // questions, in a row
}

// NewRotation makes one for the node named own, without peers. The zero interval is
// DefaultInterval.
func NewRotation(own string, interval time.Duration) *Rotation {
	interval = cmp.Or(interval, DefaultInterval)
	return &Rotation{own: own, interval: interval, patience: min(interval, longestAnswer),
		gap: time.Second, peers: map[netip.Addr]*peer{}}
}

// Set sets the peers. It keeps the state of unchanged ones. Of several with one address one counts.
func (r *Rotation) Set(peers []Peer) {
	next := make(map[netip.Addr]*peer, len(peers))
	for _, p := range peers {
		if known := r.peers[p.Addr]; known != nil && known.Peer == p {
			next[p.Addr] = known
		} else {
			next[p.Addr] = &peer{Peer: p}
		}
	}
	r.peers = next
	r.byName = slices.SortedFunc(maps.Values(next), func(a, b *peer) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr))
	})
	// The order begins at the node's own name, so that nodes that start together don't all ask one
	// peer.
	for i, p := range r.byName {
		if p.turn = i; p.Name < r.own {
			p.turn += len(r.byName)
		}
	}
}

// Ask returns the peers to ask now, and the number of questions that turn out to be unanswered.
// Call it about every second.
func (r *Rotation) Ask(now time.Time) (ask []Peer, unanswered int) {
	var due []*peer
	for _, p := range r.byName {
		if !p.asked.IsZero() && now.Sub(p.asked) > r.patience {
			p.miss(now, r.interval)
			unanswered++
		}
		if p.asked.IsZero() && !now.Before(p.due) {
			due = append(due, p)
		}
	}
	if now.Sub(r.last) < r.gap-r.gap/20 { // tickers aren't exact
		return nil, unanswered
	}
	r.last = now
	for _, p := range pick(due) {
		p.asked = now
		ask = append(ask, p.Peer)
	}
	return ask, unanswered
}

// pick returns the peers to ask among those that are due.
func pick(due []*peer) []*peer {
	var doubted, others queue
	for _, p := range due {
		if !p.inDoubt() || !doubted.push(p, PerSecond/2) {
			others.push(p, PerSecond)
		}
	}
	return append(doubted, others[:min(len(others), PerSecond-len(doubted))]...)
}

// queue is a list of peers, the one that is due longest first.
type queue []*peer

// push adds a peer unless the room is full of earlier ones. A peer that it displaces waits for the
// next time.
func (q *queue) push(p *peer, room int) bool {
	i, _ := slices.BinarySearchFunc(*q, p, func(a, b *peer) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.turn, b.turn))
	})
	if i == room {
		return false
	}
	*q = slices.Insert((*q)[:min(len(*q), room-1)], i, p)
	return true
}

func (p *peer) inDoubt() bool { return 0 < p.missed && p.missed < tries }

func (p *peer) miss(now time.Time, interval time.Duration) {
	p.missed++
	p.unsent = 0
	p.due = p.asked.Add(interval / 6)
	if p.missed >= tries {
		p.become(Silent, now)
		p.due = p.asked.Add(interval / 3)
	}
	p.asked = time.Time{}
}

func (p *peer) become(s State, now time.Time) {
	if p.state != s {
		p.state, p.since = s, now
	}
}

// Unsent notes that a question couldn't be sent, which says nothing about the peer. If no question
// can be sent, the peer is untried again.
func (r *Rotation) Unsent(now time.Time, to Peer) {
	p := r.peers[to.Addr]
	if p == nil || p.Peer != to {
		return
	}
	p.asked, p.due = time.Time{}, now.Add(r.interval/6)
	if p.unsent++; p.unsent >= tries {
		p.missed = 0
		p.become(Untried, now)
	}
}

// Answer is what came back for a question. Anyone can send it.
type Answer struct {
	Addr netip.Addr
	MAC  link.MAC // with an IPv4 address only
}

// Take takes an answer in, and reports whether it counts: it does if that peer was asked, and not
// too long ago.
func (r *Rotation) Take(now time.Time, a Answer) bool {
	p := r.peers[a.Addr]
	if p == nil || p.asked.IsZero() || now.Sub(p.asked) > r.patience ||
		a.Addr.Is4() && a.MAC != p.MAC {
		return false
	}
	p.due = p.asked.Add(r.interval)
	p.asked, p.missed, p.unsent = time.Time{}, 0, 0
	p.become(Answering, now)
	return true
}

// PeerState is what is known of one peer.
type PeerState struct {
	Name  string
	State State
	Since time.Time // the zero Time where it was never tried
}

// States lists the peers, in the order of their names.
func (r *Rotation) States() []PeerState {
	out := make([]PeerState, 0, len(r.byName))
	for _, p := range r.byName {
		out = append(out, PeerState{p.Name, p.state, p.since})
	}
	return out
}
