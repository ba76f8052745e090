package kill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"
)

// TestAgentWithoutAPIServer: an agent that starts while the API server is away leaves everything as
// the last one left it, says why no pod can come, and catches up when the API server is back.
func TestAgentWithoutAPIServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "noapi", server, client1, other)
	before := w.settled("")
	defer w.watch(true)()
	w.kill()
	addPod(w) // which fails, as there is no agent
	w.StopAPIServer()
	w.start(nil)
	failure := new(types.Error)
	defer func() { t.Logf("ADD: %v", failure) }()
	w.eventually("the agent to say why no pod can come", func() bool {
		if err := w.add(); !errors.As(err, &failure) || failure.Code != types.ErrTryAgainLater {
			w.t.Fatalf("ADD: %v, want error %d", err, types.ErrTryAgainLater)
		}
		return strings.Contains(failure.Error(), "waiting for the API server's objects")
	})
	// Longer than it takes until a new agent looks after what pods' links have at the host's end.
	w.stays(before, 3*time.Second)
	w.tryAll("without an API server", always, slices.Concat(never, opened))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := w.node().WaitAgentReady(ctx); err == nil {
		t.Error("the agent is ready without having seen the API server")
	}

	must(t, w.StartAPIServer(t.Context()))
	must(t, w.node().WaitAgentReady(t.Context()))
	podIsThere(w)
	w.remove(newPod)
	w.gone(newPod)
	w.become(before, "when the API server is back")
	w.apply(serverPolicy(true))
	w.check("when the API server is back", opened, true)
}

// add runs CNI ADD on subject for an unknown pod, and undoes one that succeeds.
func (w *world) add() error {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.node().ConfDir(), "*.conflist"))
	must(w.t, err)
	network, err := libcni.ConfListFromFile(files[0])
	must(w.t, err)
	space, err := ns.TempNetNS()
	must(w.t, err)
	defer func() { must(w.t, space.Close()) }()
	config := &libcni.RuntimeConf{
		ContainerID: "nobody", IfName: "eth0",
		NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), space.Fd()),
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "app"},
			{"K8S_POD_NAME", "nobody"},
			{"K8S_POD_INFRA_CONTAINER_ID", "nobody"}, {"K8S_POD_UID", "1"}},
	}
	runtime := libcni.NewCNIConfigWithCacheDir([]string{programs.Plugins}, w.t.TempDir(), nil)
	return w.node().Do(func() error {
		_, err := runtime.AddNetworkList(w.t.Context(), network, config)
		if err == nil {
			must(w.t, runtime.DelNetworkList(w.t.Context(), network, config))
		}
		return err
	})
}

// stays demands that the subject's state is this, for so long.
func (w *world) stays(want string, long time.Duration) {
	w.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(long); time.Now().Before(end); <-tick.C {
		if got := w.state(); got != want {
			w.t.Fatalf("the state has changed (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
}
