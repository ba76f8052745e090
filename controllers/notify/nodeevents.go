package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
)

// NodeEvents puts Events on the object of one node. Its methods may be called from several
// goroutines, and do nothing without a recorder.
type NodeEvents struct {
	Node     string
	Recorder events.EventRecorder
}

// Warn reports a problem. Reason is one word in CamelCase.
func (e NodeEvents) Warn(reason, note string) { e.put(corev1.EventTypeWarning, reason, note, nil) }

// WarnAbout reports a problem with another node.
func (e NodeEvents) WarnAbout(other, reason, note string) {
	e.put(corev1.EventTypeWarning, reason, note, nodeReference(other))
}

// Say reports that something is as it should be.
func (e NodeEvents) Say(reason, note string) { e.put(corev1.EventTypeNormal, reason, note, nil) }

func (e NodeEvents) put(kind, reason, note string, related runtime.Object) {
	if e.Recorder == nil {
		return
	}
	// The recorder takes Events that differ only in the note for one Event, and keeps the first
	// note. So the action distinguishes notes.
	action := reason + "-" + shortHash(note)
	e.Recorder.Eventf(nodeReference(e.Node), related, kind, reason, action, "%s", Clamp(note))
}

// LongestNote is what the API server takes, in bytes.
const LongestNote = 1024

// Clamp cuts a note to what the API server takes.
func Clamp(note string) string { return ClampTo(note, LongestNote) }

// ClampTo cuts a note to so many bytes, in whole characters.
func ClampTo(note string, most int) string {
	const end = " ..."
	if len(note) <= most {
		return note
	}
	return strings.ToValidUTF8(note[:most-len(end)], "") + end
}

// nodeReference is a node as events name it: kubelet uses the name as the UID.
func nodeReference(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
}

// shortHash distinguishes texts that are too long for a name.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
