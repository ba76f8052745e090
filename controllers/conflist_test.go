package controllers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/cni/install"
	"github.com/sluice-net/sluice/controllers/notify"
)

// TestConflistIsReported: what others do to the CNI configuration is reported when it begins and
// when it changes; what an earlier agent left is no edit.
func TestConflistIsReported(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(100)
	d := &Datapath{ConfDir: "/net.d", Events: notify.NodeEvents{Node: "n1", Recorder: recorder},
		Log: logr.Discard()}
	for i, step := range []struct {
		state    install.ConflistState
		reported []string
	}{
		{install.ConflistState{Changed: true, Edited: "its settings were others"}, nil},
		{install.ConflistState{}, nil},
		{install.ConflistState{Appended: []string{"mesh", "tuning"}},
			[]string{"Normal CNIPluginsAppended", "mesh, tuning"}},
		{install.ConflistState{Appended: []string{"mesh", "tuning"}}, nil},
		{install.ConflistState{Changed: true, Edited: "plugin sluice isn't in it"},
			[]string{"Warning CNIConfigEdited", "plugin sluice isn't in it",
				"Normal CNIPluginsAppended", "none"}},
		{install.ConflistState{Before: []string{"00-other.conf"}},
			[]string{"Warning OtherCNIFirst", "00-other.conf"}},
	} {
		d.reportConflist(step.state)
		var reported []string
		for len(recorder.Events) > 0 {
			reported = append(reported, <-recorder.Events)
		}
		if len(reported)*2 != len(step.reported) {
			t.Errorf("step %d: reported %q, want %q", i, reported, step.reported)
			continue
		}
		for j, event := range reported {
			if !strings.HasPrefix(event, step.reported[2*j]) ||
				!strings.Contains(event, step.reported[2*j+1]) {
				t.Errorf("step %d: reported %s, want %s", i, event,
					fmt.Sprint(step.reported[2*j:2*j+2]))
			}
		}
	}
}
