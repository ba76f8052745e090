package notify

import (
	"strings"
	"testing"
	"unicode/utf8"

	"k8s.io/client-go/tools/events"
)

func TestNodeEvents(t *testing.T) {
	t.Parallel()
	NodeEvents{Node: "n"}.Warn("Nobody", "is told")
	recorder := events.NewFakeRecorder(10)
	e := NodeEvents{Node: "n", Recorder: recorder}
	e.Warn("InvalidNetworkConfig", "Backend.VNI: -1: expected 100%")
	if got := <-recorder.Events; got !=
		"Warning InvalidNetworkConfig Backend.VNI: -1: expected 100%" {
		t.Errorf("got %q", got)
	}
	e.Say("NetworkReady", "fine")
	if got := <-recorder.Events; got != "Normal NetworkReady fine" {
		t.Errorf("got %q", got)
	}
}

func TestClampNote(t *testing.T) {
	t.Parallel()
	if got := Clamp(strings.Repeat("a", 1024)); len(got) != 1024 {
		t.Errorf("what fits is cut to %d bytes", len(got))
	}
	got := Clamp("x" + strings.Repeat("ü", 600))
	if len(got) > 1024 || len(got) < 1000 || !utf8.ValidString(got) ||
		!strings.HasSuffix(got, "ü ...") {
		t.Errorf("%d bytes, end %q", len(got), got[len(got)-10:])
	}
}
