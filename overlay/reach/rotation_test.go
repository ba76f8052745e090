package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/overlay"
)

var start = time.Unix(1000, 0)

// somePeers makes so many, of a node that isn't among them.
func somePeers(n int) (peers []Peer) {
	for i := range n {
		name := fmt.Sprintf("node%04d", i)
		peers = append(peers, Peer{Name: name, MAC: overlay.TunnelMAC(name),
			Addr: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})})
	}
	return peers
}

func answerOf(p Peer) Answer { return Answer{Addr: p.Addr, MAC: p.MAC} }

func stateOf(t *testing.T, r *Rotation, name string) PeerState {
	t.Helper()
	states := r.States()
	i := slices.IndexFunc(states, func(s PeerState) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("%s isn't among %v", name, states)
	}
	return states[i]
}

// TestPeerIsSilentAfterThreeQuestions: when one peer is asked, second by second, and what is held
// of it.
func TestPeerIsSilentAfterThreeQuestions(t *testing.T) {
	t.Parallel()
	r := NewRotation("own", 0)
	p := somePeers(1)[0]
	r.Set([]Peer{p})
	// the peer doesn't answer then
	silent := func(second int) bool { return second < 50 || second > 150 }
	var asked []int
	var changes []string
	last := PeerState{Name: p.Name}
	unanswered := 0
	for second := range 200 {
		now := start.Add(time.Duration(second) * time.Second)
		ask, missed := r.Ask(now)
		unanswered += missed
		if len(ask) > 0 {
			asked = append(asked, second)
			if !silent(second) && !r.Take(now.Add(time.Millisecond), answerOf(p)) {
				t.Errorf("second %d: the answer doesn't count", second)
			}
		}
		if now := stateOf(t, r, p.Name); now != last {
			changes = append(changes, fmt.Sprintf("%d: %d", second, now.State))
			last = now
		}
	}
	// Again after 5 s until it is silent, then after 10 s; every 30 s while it answers; then
	// likewise.
	if want := []int{0, 5, 10, 20, 30, 40, 50, 80, 110, 140, 170, 175, 180,
		190}; !slices.Equal(asked, want) {
		t.Errorf("asked at %v, want %v", asked, want)
	}
	want := []string{"13: 2", "50: 1", "183: 2"}
	if !slices.Equal(changes, want) {
		t.Errorf("states: %q, want %q", changes, want)
	}
	if unanswered != 10 {
		t.Errorf("%d questions count as unanswered, want 10", unanswered)
	}
}

// TestRotationIsBounded: with any answers and any number of peers, a node asks no more than
// PerSecond a second, and each peer has its turn in time.
func TestRotationIsBounded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 9, 300} {
		for _, answering := range []int{0, 50, 100} {
			checkTurns(t, n, answering, 3, answering == 50)
		}
	}
	checkTurns(t, 600, 40, 2, false)
}

// TestSilenceIsSoonKnown: when all of many peers fall silent at once, the first count as silent
// within seconds, and one of many in the time of a turn.
func TestSilenceIsSoonKnown(t *testing.T) {
	t.Parallel()
	peers := somePeers(1500)
	for _, c := range []struct {
		name    string
		silent  func(Peer) bool
		seconds int
	}{
		{"all", func(Peer) bool { return true }, 20},
		{"one", func(p Peer) bool { return p.Name == "node0777" }, 188 + 20},
	} {
		r := NewRotation("own", 0)
		r.Set(peers)
		const fault = 190
		known := 0
		for second := 0; known == 0 && second < 3*fault; second++ {
			now := start.Add(time.Duration(second) * time.Second)
			ask, _ := r.Ask(now)
			for _, p := range ask {
				if second < fault || !c.silent(p) {
					r.Take(now, answerOf(p))
				}
			}
			if second >= fault && slices.ContainsFunc(r.States(),
				func(s PeerState) bool { return s.State == Silent }) {
				known = second
			}
		}
		if took := known - fault; took <= 0 || took > c.seconds {
			t.Errorf("%s: the first counts as silent after %d s, want %d at most", c.name, took,
				c.seconds)
		}
	}
}

// checkTurns runs a Rotation for some turns of all peers.
func checkTurns(t *testing.T, n, answering, turns int, leave bool) {
	t.Helper()
	peers := somePeers(n)
	r := NewRotation(peers[n/3].Name+"x", 0)
	r.Set(peers)
	turn := time.Duration(n/(PerSecond/2)+1)*time.Second + DefaultInterval + longestAnswer +
		time.Second
	askedAt := map[string]time.Time{}
	for second := range int(time.Duration(turns) * turn / time.Second) {
		now := start.Add(time.Duration(second) * time.Second)
		if leave && second == 50 {
			peers = peers[:n/2+1]
			r.Set(peers)
		}
		ask, _ := r.Ask(now)
		if again, _ := r.Ask(now.Add(time.Second / 2)); len(ask) > PerSecond || len(again) > 0 {
			t.Fatalf("second %d: %d questions, %d half a second later", second, len(ask),
				len(again))
		}
		for _, p := range ask {
			last, was := askedAt[p.Name]
			if was && now.Sub(last) > turn || !was && now.Sub(start) > turn {
				t.Fatalf("second %d: %s had its last turn at %s, of %d peers", second, p.Name,
					last, n)
			}
			askedAt[p.Name] = now
			if share(p.Name) < answering && !r.Take(now, answerOf(p)) {
				t.Fatalf("second %d: the answer of %s doesn't count", second, p.Name)
			}
		}
	}
	end := start.Add(time.Duration(turns) * turn)
	for _, s := range r.States() {
		want := Silent
		if share(s.Name) < answering {
			want = Answering
		}
		if s.State != want || end.Sub(askedAt[s.Name]) > turn {
			t.Fatalf("%s is %d, want %d; last asked %s ago", s.Name, s.State, want,
				end.Sub(askedAt[s.Name]))
		}
	}
}

// share spreads names over 0 to 99.
func share(name string) int { return int(overlay.TunnelMAC(name)[5]) * 100 / 256 }

// TestSilentPeersComeFirst: as long as there is room, one that is silent is asked as often as if
// there were no others.
func TestSilentPeersComeFirst(t *testing.T) {
	t.Parallel()
	peers := somePeers(200) // every 30 s: less than 8 a second
	r := NewRotation("own", 0)
	r.Set(peers)
	var asked []int
	for second := range 120 {
		now := start.Add(time.Duration(second) * time.Second)
		ask, _ := r.Ask(now)
		for _, p := range ask {
			if p.Name == "node0100" {
				asked = append(asked, second)
			} else {
				r.Take(now, answerOf(p))
			}
		}
	}
	for i := 1; i < len(asked); i++ {
		// in the first turn all are due
		if gap := asked[i] - asked[i-1]; asked[i-1] > 30 && gap > 12 {
			t.Errorf("the silent peer was asked at %v: not for %d s", asked, gap)
		}
	}
	if len(asked) < 9 {
		t.Errorf("the silent peer was asked at %v", asked)
	}
}

// TestNodesDontAllAskOne: nodes that start together begin with different peers.
func TestNodesDontAllAskOne(t *testing.T) {
	t.Parallel()
	peers := somePeers(100)
	count := map[string]int{}
	for _, own := range peers {
		r := NewRotation(own.Name, 0)
		r.Set(slices.DeleteFunc(slices.Clone(peers), func(p Peer) bool { return p == own }))
		ask, _ := r.Ask(start)
		for _, p := range ask {
			count[p.Name]++
		}
	}
	for name, n := range count {
		if n > PerSecond {
			t.Errorf("%d nodes ask %s at once", n, name)
		}
	}
}

// TestOnlyAnswersCount: what wasn't asked, is late, or comes from another MAC changes nothing.
func TestOnlyAnswersCount(t *testing.T) {
	t.Parallel()
	peers := somePeers(3)
	peers[2].Addr = netip.MustParseAddr("fd00:10:244:3::")
	for _, c := range []struct {
		name   string
		answer Answer
		after  time.Duration
		want   bool
	}{
		{"an answer", answerOf(peers[0]), time.Second, true},
		{"one that is just in time", answerOf(peers[0]), 2 * time.Second, true},
		{"a late one", answerOf(peers[0]), 2*time.Second + 1, false},
		{"another node's MAC", Answer{peers[0].Addr, peers[1].MAC}, 0, false},
		{"no MAC", Answer{Addr: peers[0].Addr}, 0, false},
		{"an address that nobody has", Answer{netip.MustParseAddr("10.9.9.9"), peers[0].MAC},
			0, false},
		{"no address", Answer{}, 0, false},
		{"an IPv6 address, which comes without a MAC", Answer{Addr: peers[2].Addr}, 0, true},
	} {
		r := NewRotation("own", 0)
		r.Set(peers)
		if r.Take(start, c.answer) {
			t.Errorf("%s: counts before there was a question", c.name)
		}
		r.Ask(start)
		if got := r.Take(start.Add(c.after), c.answer); got != c.want {
			t.Errorf("%s: counts: %t, want %t", c.name, got, c.want)
		}
		if r.Take(start.Add(c.after), c.answer) {
			t.Errorf("%s: counts twice", c.name)
		}
		answering := 0
		for _, s := range r.States() {
			if s.State == Answering {
				answering++
			}
		}
		if answering > 1 || answering == 1 != c.want {
			t.Errorf("%s: %d peers answer", c.name, answering)
		}
	}
}

// TestPeersChange: what is known of a peer is of this address and MAC.
func TestPeersChange(t *testing.T) {
	t.Parallel()
	r := NewRotation("own", 0)
	peers := somePeers(2)
	r.Set(peers)
	for _, p := range peers {
		r.Ask(start)
		r.Take(start, answerOf(p))
	}
	moved := peers[1]
	moved.Name, moved.MAC = "other", overlay.TunnelMAC("other")
	r.Set([]Peer{peers[0], moved})
	got := r.States()
	if len(got) != 2 || got[0].State != Answering || got[1] != (PeerState{Name: "other"}) {
		t.Errorf("got %v", got)
	}
	if r.Take(start, answerOf(peers[1])) || r.Take(start, answerOf(moved)) {
		t.Error("an answer to an earlier question counts for who has the address now")
	}
	r.Set(nil)
	if ask, _ := r.Ask(start.Add(time.Hour)); len(ask) > 0 || len(r.States()) > 0 {
		t.Errorf("without peers: ask %v, know %v", ask, r.States())
	}
}

// TestUnsentIsntSilent: a peer that can't be asked is untried, in any earlier state.
func TestUnsentIsntSilent(t *testing.T) {
	t.Parallel()
	r := NewRotation("own", 0)
	p := somePeers(1)[0]
	r.Set([]Peer{p})
	var states []State
	sent, unsent := 0, 0
	for second := range 100 {
		now := start.Add(time.Duration(second) * time.Second)
		ask, _ := r.Ask(now)
		if len(ask) > 0 && second >= 30 && second < 60 {
			unsent++
			r.Unsent(now, p)
		} else {
			sent += len(ask)
		}
		if s := stateOf(t, r, p.Name).State; len(states) == 0 || states[len(states)-1] != s {
			states = append(states, s)
		}
	}
	if want := []State{Untried, Silent, Untried, Silent}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v (%d sent, %d unsent)", states, want, sent, unsent)
	}
}

// BenchmarkSecond is what one second costs of a Rotation in which all answer.
func BenchmarkSecond(b *testing.B) {
	for _, n := range []int{15, 150, 1500} {
		b.Run(fmt.Sprintf("peers=%d", n), func(b *testing.B) {
			r := NewRotation("own", 0)
			r.Set(somePeers(n))
			second := 0
			for b.Loop() {
				now := start.Add(time.Duration(second) * time.Second)
				second++
				ask, _ := r.Ask(now)
				for _, p := range ask {
					r.Take(now, answerOf(p))
				}
				r.States()
			}
		})
	}
}
