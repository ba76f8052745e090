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

// TestConflistIsTold: what others do to the CNI configuration is told when it begins and when it
// changes; what an earlier agent left isn't anybody's edit.
func TestConflistIsTold(t *testing.T) {
	t.Parallel()
	recorder := events.NewFakeRecorder(100)
	d := &Datapath{ConfDir: "/net.d", Events: notify.NodeEvents{Node: "n1", Recorder: recorder},
		Log: logr.Discard()}
	for i, step := range []struct {
		state install.ConflistState
		told  []string
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
		d.tellConflist(step.state)
		var told []string
		for len(recorder.Events) > 0 {
			told = append(told, <-recorder.Events)
		}
		if len(told)*2 != len(step.told) {
			t.Errorf("step %d: told %q, want %q", i, told, step.told)
			continue
		}
		for j, event := range told {
			if !strings.HasPrefix(event, step.told[2*j]) ||
				!strings.Contains(event, step.told[2*j+1]) {
				t.Errorf("step %d: told %s, want %s", i, event, fmt.Sprint(step.told[2*j:2*j+2]))
			}
		}
	}
}
