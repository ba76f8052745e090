package reach

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/overlay"
)

var (
	ownMAC = overlay.TunnelMAC("own")
	asked4 = Peer{Name: "peer", MAC: overlay.TunnelMAC("peer"),
		Addr: netip.MustParseAddr("10.244.2.0")}
	asked6 = Peer{Name: "peer", MAC: asked4.MAC, Addr: netip.MustParseAddr("fd00:10:244:2::")}
)

// arpAnswerOf is what the kernel of a peer makes of a question.
func arpAnswerOf(p Peer) []byte {
	f := bytes.Clone(arpQuestion(ownMAC, p))
	copy(f, ownMAC[:])
	copy(f[macLen:], p.MAC[:])
	f[arpOp+1] = arpReply
	copy(f[arpSender:], p.MAC[:])
	copy(f[arpSender+macLen:], p.Addr.AsSlice())
	copy(f[arpTarget:], ownMAC[:])
	copy(f[arpTarget+macLen:], []byte{0, 0, 0, 0})
	return f
}

func ndAnswerOf(p Peer) []byte {
	m := bytes.Clone(ndQuestion(p))
	m[0], m[ndFlags] = advertisement, ndSolicited
	return m
}

// TestAnswersAreExact: of an ARP answer each byte that says something has to be right, of a
// neighbour advertisement likewise.
func TestAnswersAreExact(t *testing.T) {
	t.Parallel()
	f := arpAnswerOf(asked4)
	if a, ok := arpAnswer(ownMAC, f); !ok || a != answerOf(asked4) {
		t.Fatalf("%v, %t for a right answer", a, ok)
	}
	for i := range f {
		wrong := bytes.Clone(f)
		wrong[i] ^= 1
		address := i >= arpSender+macLen && i < arpTarget
		if a, ok := arpAnswer(ownMAC, wrong); ok && (!address || a == answerOf(asked4)) {
			t.Errorf("byte %d isn't looked at", i)
		}
	}
	if _, ok := arpAnswer(ownMAC, f[:len(f)-1]); ok {
		t.Error("a short frame counts")
	}
	if _, ok := arpAnswer(ownMAC, arpQuestion(ownMAC, asked4)); ok {
		t.Error("a question counts")
	}

	m := ndAnswerOf(asked6)
	if a, ok := ndAnswer(asked6.Addr, ndHopLimit, m); !ok || a != (Answer{Addr: asked6.Addr}) {
		t.Fatalf("%v, %t for a right advertisement", a, ok)
	}
	for name, ok := range map[string]bool{
		"forwarded":       second(ndAnswer(asked6.Addr, ndHopLimit-1, m)),
		"from elsewhere":  second(ndAnswer(asked4.Addr, ndHopLimit, m)),
		"unasked":         second(ndAnswer(asked6.Addr, ndHopLimit, ndQuestion(asked6))),
		"short":           second(ndAnswer(asked6.Addr, ndHopLimit, m[:len(m)-1])),
		"another message": second(ndAnswer(asked6.Addr, ndHopLimit, append([]byte{135}, m[1:]...))),
	} {
		if ok {
			t.Errorf("an advertisement counts that is %s", name)
		}
	}
}

func second(_ Answer, ok bool) bool { return ok }

// FuzzAnswers: no packet from the tunnel counts as an answer of a peer that didn't send one.
func FuzzAnswers(f *testing.F) {
	f.Add(arpAnswerOf(asked4), ndHopLimit)
	f.Add(ndAnswerOf(asked6), ndHopLimit)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, data []byte, hops int) {
		if a, ok := arpAnswer(ownMAC, data); ok {
			p := Peer{MAC: a.MAC, Addr: a.Addr}
			if !a.Addr.Is4() || !bytes.HasPrefix(data, arpAnswerOf(p)) {
				t.Errorf("%x is taken for an answer of %v", data, a)
			}
		}
		if a, ok := ndAnswer(asked6.Addr, hops, data); ok &&
			(a.Addr != asked6.Addr || hops != ndHopLimit) {
			t.Errorf("%x with %d hops is taken for an answer of %v", data, hops, a)
		}
	})
}
