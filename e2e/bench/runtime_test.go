package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/test/testnet"
)

// plugins are the packages of the programs that are compared, by the folder of the module that
// names their versions.
var plugins = map[string][]string{
	"../..": {"./cmd/sluice"},
	"../assets/plugins": {
		"github.com/containernetworking/plugins/plugins/main/bridge",
		"github.com/containernetworking/plugins/plugins/main/ptp",
		"github.com/containernetworking/plugins/plugins/ipam/host-local",
	},
}

// buildPlugins returns a folder with the programs, all built alike. What was built before is only
// linked.
func buildPlugins(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	for module, packages := range plugins {
		//nolint:gosec // of the repository
		build := exec.CommandContext(b.Context(), "go",
			append([]string{"build", "-trimpath", "-o", dir + "/"}, packages...)...)
		build.Dir, build.Env = module, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			b.Fatalf("building the plugins: %v\n%s", err, out)
		}
	}
	return dir
}

// inMemory returns a folder for what a node forgets when it is switched off. All plugins get theirs
// there, so that none waits for a disk.
func inMemory(b *testing.B) string {
	b.Helper()
	const memory = "/dev/shm"
	//nolint:usetesting // not where the test's own files are
	dir, err := os.MkdirTemp(memory, "sluice-bench-")
	must(b, err)
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}

// runtime does what a container runtime does with CNI plugins, on a node of its own.
type runtime struct {
	name string
	node *testnet.Node
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
	know func(sandbox) // reports a pod to an agent; nil if there is none
}

func newRuntime(b *testing.B, name, programs, plugin string) *runtime {
	b.Helper()
	return newRuntimeOn(b, testnet.NewNode(b), name, programs, plugin)
}

func newRuntimeOn(b *testing.B, node *testnet.Node, name, programs, plugin string) *runtime {
	b.Helper()
	list, err := libcni.ConfListFromBytes(
		fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": %q, "plugins": [%s]}`, name, plugin))
	must(b, err)
	execute := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}
	return &runtime{
		name: name, node: node, list: list,
		cni: libcni.NewCNIConfigWithCacheDir([]string{programs}, inMemory(b), execute),
	}
}

// sandbox is where a pod is to be.
type sandbox struct {
	netns    ns.NetNS
	pod, uid string
	args     *libcni.RuntimeConf
}

// newSandbox makes the network namespace of a pod, whose number is unique. It is gone when close is
// called.
func newSandbox(b *testing.B, number int) sandbox {
	b.Helper()
	netns, err := ns.TempNetNS()
	must(b, err)
	s := sandbox{netns: netns, pod: fmt.Sprintf("pod-%d", number),
		uid: fmt.Sprintf("uid-%d", number)}
	id := fmt.Sprintf("%064x", number)
	s.args = &libcni.RuntimeConf{
		ContainerID: id, IfName: "eth0",
		NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd()),
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "bench"}, {"K8S_POD_NAME", s.pod},
			{"K8S_POD_INFRA_CONTAINER_ID", id}, {"K8S_POD_UID", s.uid},
		},
	}
	return s
}

// Do runs f where the pod is.
func (s sandbox) Do(f func() error) error {
	return s.netns.Do(func(ns.NetNS) error { return f() })
}

func (s sandbox) close(b *testing.B) {
	b.Helper()
	must(b, s.netns.Close())
}

func (r *runtime) add(ctx context.Context, s sandbox) error {
	return r.node.Do(func() error {
		if _, err := r.cni.AddNetworkList(ctx, r.list, s.args); err != nil {
			return fmt.Errorf("ADD by %s: %w", r.name, err)
		}
		return nil
	})
}

func (r *runtime) del(ctx context.Context, s sandbox) error {
	return r.node.Do(func() error {
		if err := r.cni.DelNetworkList(ctx, r.list, s.args); err != nil {
			return fmt.Errorf("DEL by %s: %w", r.name, err)
		}
		return nil
	})
}
