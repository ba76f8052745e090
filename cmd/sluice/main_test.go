package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/test/needroot"
)

// These tests run the real binary as a runtime does, through libcni.

func TestMain(m *testing.M) {
	directory, err := os.MkdirTemp("", "sluice-plugin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	binDirectory = directory
	if output, err := exec.Command("go", "build", "-o", directory, ".").
		CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the plugin: %v\n%s", err, output)
	} else if code = m.Run(); code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(directory)
	os.Exit(code)
}

var binDirectory string // with the plugin in it

// patience is how long a test waits for what must happen.
const patience = time.Minute

// enforcer lets every pod in, once it may.
type enforcer struct {
	wait    func(context.Context) error // may be nil
	mu      sync.Mutex
	present []string
}

func (e *enforcer) Attach(ctx context.Context, a cni.Attachment) error {
	if e.wait != nil {
		if err := e.wait(ctx); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.present = append(e.present, a.ID())
	return nil
}

func (e *enforcer) Detach(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.present = slices.DeleteFunc(e.present, func(other string) bool { return other == id })
	return nil
}

func (e *enforcer) Enforced(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.present, id) {
		return errors.New("it isn't in the kernel")
	}
	return nil
}

// node is a network namespace with an agent, and a runtime in it.
type node struct {
	t        testing.TB
	netns    ns.NetNS
	stateDir string
	runtime  *libcni.CNIConfig
	server   *server.Server
	stop     func()
}

func newNode(t testing.TB, e server.Enforcer) *node {
	t.Helper()
	// Without an exec of ours libcni makes one at first use, which isn't safe to do concurrently.
	run := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}
	n := &node{
		t: t, netns: newNetNS(t), stateDir: t.TempDir(),
		runtime: libcni.NewCNIConfigWithCacheDir([]string{binDirectory}, t.TempDir(), run),
	}
	s, err := server.New(server.Options{Socket: n.socket(), StateDir: n.stateDir, Enforcer: e,
		Log: logr.Discard(), NetNS: n.netns})
	if err != nil {
		t.Fatal(err)
	}
	n.server = s
	s.SetDatapathReady(true, "")
	s.SetPodCIDRs([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"),
		netip.MustParsePrefix("fd00:1::/64")})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }()
	go func() { ended <- s.KeepHostEnds(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	t.Cleanup(n.stop)
	n.eventually("the agent", func() bool {
		err := cni.NewClient(n.socket()).
			Call(ctx, cni.PathStatus, cni.StatusRequest{}, new(cni.StatusAnswer))
		return err == nil
	})
	return n
}

func newNetNS(t testing.TB) ns.NetNS {
	t.Helper()
	needroot.Skip(t)
	netns, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Close() })
	return netns
}

func (n *node) socket() string { return filepath.Join(n.stateDir, cni.SocketName) }

func (n *node) eventually(what string, done func() bool) {
	n.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			n.t.Fatalf("timeout waiting for %s", what)
		}
	}
}

func (n *node) config(version string) *libcni.NetworkConfigList {
	n.t.Helper()
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil,
		`{"cniVersion":%q,"name":"sluice","plugins":[{"type":"sluice","socket":%q,"stateDir":%q}]}`,
		version, n.socket(), n.stateDir))
	if err != nil {
		n.t.Fatal(err)
	}
	return list
}

func podArgs(container string, netns ns.NetNS) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: container, IfName: "eth0",
		NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd()),
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "dev"},
			{"K8S_POD_NAME", "pod-" + container},
			{"K8S_POD_INFRA_CONTAINER_ID", container}, {"K8S_POD_UID", "uid-" + container},
		},
	}
}

// do runs f in the node's network namespace; processes that f starts run there too.
func (n *node) do(f func() error) error { return n.netns.Do(func(ns.NetNS) error { return f() }) }

func (n *node) add(ctx context.Context, version string,
	pod *libcni.RuntimeConf) (result types.Result, err error) {
	err = n.do(func() error {
		result, err = n.runtime.AddNetworkList(ctx, n.config(version), pod)
		return err
	})
	return result, err
}

func (n *node) del(ctx context.Context, version string, pod *libcni.RuntimeConf) error {
	return n.do(func() error { return n.runtime.DelNetworkList(ctx, n.config(version), pod) })
}

func TestVersions(t *testing.T) {
	t.Parallel()
	n := newNode(t, &enforcer{})
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			pod := podArgs("c"+version, newNetNS(t))
			added, err := n.add(t.Context(), version, pod)
			if err != nil {
				t.Fatal(err)
			}
			if added.Version() != version {
				t.Errorf("the result has version %s", added.Version())
			}
			result, err := types100.GetResult(added)
			if err != nil {
				t.Fatal(err)
			}
			if len(result.IPs) != 2 || len(result.Interfaces) != 2 || len(result.Routes) != 2 ||
				result.Interfaces[1].Sandbox != pod.NetNS {
				t.Errorf("got %v", result)
			}
			for range 2 {
				if err := n.del(t.Context(), version, pod); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("too old", func(t *testing.T) {
		t.Parallel()
		_, err := n.add(t.Context(), "0.3.1", podArgs("old", newNetNS(t)))
		mustFail(t, err, types.ErrIncompatibleCNIVersion)
	})
}

func mustFail(t *testing.T, err error, code uint) {
	t.Helper()
	if known := new(types.Error); !errors.As(err, &known) || known.Code != code {
		t.Errorf("got %v, want code %d", err, code)
	}
}

func TestVersionVerb(t *testing.T) {
	t.Parallel()
	var output bytes.Buffer
	command := exec.Command(filepath.Join(binDirectory, "sluice"))
	command.Env, command.Stdout = []string{"CNI_COMMAND=VERSION"}, &output
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	var got struct{ SupportedVersions []string }
	if err := json.Unmarshal(output.Bytes(), &got); err != nil ||
		!slices.Equal(got.SupportedVersions, []string{"0.4.0", "1.0.0", "1.1.0"}) {
		t.Errorf("got %s and %v", output.String(), err)
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	command := exec.Command(filepath.Join(binDirectory, "sluice"))
	command.Env = []string{}
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "CNI plugin sluice") {
		t.Errorf("got %s and %v", output, err)
	}
}

// TestVerbs: a runtime's CHECK, STATUS and GC by way of libcni, which gives them what ADD returned.
func TestVerbs(t *testing.T) {
	t.Parallel()
	n := newNode(t, &enforcer{})
	keep, stale := podArgs("c1", newNetNS(t)), podArgs("c2", newNetNS(t))
	for _, pod := range []*libcni.RuntimeConf{keep, stale} {
		pod.CapabilityArgs = map[string]any{"portMappings": []map[string]any{}}
		if _, err := n.add(t.Context(), "1.1.0", pod); err != nil {
			t.Fatal(err)
		}
	}
	list := n.config("1.1.0")
	run := func(what string, f func() error) {
		t.Helper()
		if err := n.do(f); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	run("CHECK", func() error { return n.runtime.CheckNetworkList(t.Context(), list, keep) })
	run("STATUS", func() error { return n.runtime.GetStatusNetworkList(t.Context(), list) })
	gcArgs := &libcni.GCArgs{
		ValidAttachments: []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}}
	run("GC", func() error { return n.runtime.GCNetworkList(t.Context(), list, gcArgs) })
	left := n.server.Attachments()
	if len(left) != 1 || left[0].ContainerID != "c1" || left[0].Network != "sluice" {
		t.Errorf("left %v, want c1 of sluice", left)
	}
	run("CHECK after GC", func() error {
		return n.runtime.CheckNetworkList(t.Context(), list, keep)
	})
	n.stop()
	run("STATUS of a node whose agent is being replaced", func() error {
		return n.runtime.GetStatusNetworkList(t.Context(), list)
	})
	if err := os.Remove(filepath.Join(n.stateDir, "heartbeat.json")); err != nil {
		t.Fatal(err)
	}
	mustFail(t, n.do(func() error { return n.runtime.GetStatusNetworkList(t.Context(), list) }), 50)
}

func TestNoAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t, &enforcer{})
	with, without := podArgs("c1", newNetNS(t)), podArgs("c2", newNetNS(t))
	if _, err := n.add(t.Context(), "1.1.0", with); err != nil {
		t.Fatal(err)
	}
	n.stop()
	_, err := n.add(t.Context(), "1.1.0", without)
	mustFail(t, err, types.ErrTryAgainLater)
	for _, pod := range []*libcni.RuntimeConf{with, without} {
		if err := n.del(t.Context(), "1.1.0", pod); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(n.stateDir, "attachments"))
	if err != nil || len(entries) != 0 {
		t.Errorf("records %v and %v", entries, err)
	}
}

// TestKilledPlugin: a runtime that loses patience kills the plugin, which can't undo anything then;
// the agent does.
func TestKilledPlugin(t *testing.T) {
	t.Parallel()
	ctx, kill := context.WithCancel(t.Context())
	n := newNode(t, &enforcer{wait: func(ctx context.Context) error {
		kill()
		<-ctx.Done()
		return ctx.Err()
	}})
	if _, err := n.add(ctx, "1.1.0", podArgs("c1", newNetNS(t))); err == nil {
		t.Error("ADD without a policy")
	}
	n.eventually("the ADD to be undone", func() bool { return len(n.server.Attachments()) == 0 })
}

func TestPluginsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, &enforcer{})
	var mu sync.Mutex
	seen := map[string]bool{}
	var done sync.WaitGroup
	for i := range 30 {
		pod := podArgs(fmt.Sprint("c", i), newNetNS(t))
		done.Go(func() {
			added, err := n.add(t.Context(), "1.1.0", pod)
			if err != nil {
				t.Error(err)
				return
			}
			result, err := types100.GetResult(added)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, ip := range result.IPs {
				if seen[ip.Address.String()] {
					t.Errorf("two pods have %s", ip.Address.String())
				}
				seen[ip.Address.String()] = true
			}
		})
	}
	done.Wait()
	if len(seen) != 60 {
		t.Errorf("%d addresses, want 60", len(seen))
	}
}

// These run the plugin as a runtime does, with an enforcer that takes no time: for one pod after
// the other, and for 50 at once.
func BenchmarkAdd(b *testing.B) { benchmark(b, 1, true) }

func BenchmarkDel(b *testing.B) { benchmark(b, 1, false) }

func BenchmarkAddAtOnce(b *testing.B) { benchmark(b, 50, true) }

func BenchmarkDelAtOnce(b *testing.B) { benchmark(b, 50, false) }

// benchmark adds and deletes b.N times as many pods as there are to be at once, and reports how
// long one of the verbs takes.
func benchmark(b *testing.B, atOnce int, timeAdd bool) {
	b.Helper()
	n := newNode(b, &enforcer{})
	var mu sync.Mutex
	var times []time.Duration
	all := func(pods []*libcni.RuntimeConf, isTimed bool, verb func(*libcni.RuntimeConf) error) {
		var done sync.WaitGroup
		for _, pod := range pods {
			done.Go(func() {
				start := time.Now()
				if err := verb(pod); err != nil {
					b.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if isTimed {
					times = append(times, time.Since(start))
				}
			})
		}
		done.Wait()
	}
	for i := range b.N {
		var pods []*libcni.RuntimeConf
		for k := range atOnce {
			pods = append(pods, podArgs(fmt.Sprintf("c%d-%d", i, k), newNetNS(b)))
		}
		all(pods, timeAdd, func(pod *libcni.RuntimeConf) error {
			_, err := n.add(b.Context(), "1.1.0", pod)
			return err
		})
		all(pods, !timeAdd, func(pod *libcni.RuntimeConf) error {
			return n.del(b.Context(), "1.1.0", pod)
		})
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
}
