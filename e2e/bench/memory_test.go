package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/memorygroup"
)

// A cluster of this size, of which one node is real: for its agent the others are objects, routes
// and neighbours.
const (
	manyNodes = 1000
	manyPods  = 10_000

	podsPerNamespace = 100
	requestsAtOnce   = 32
)

// BenchmarkAgentMemory is the resident memory of a real agent with a real API server: alone, after
// nodes and pods have come one by one, and of another agent that finds them all when it starts. In
// short runs there are no figures: making the objects takes minutes.
func BenchmarkAgentMemory(b *testing.B) {
	if !long {
		b.Skip("only with SLUICE_LONG=1: it takes minutes")
	}
	l := newLab(b, "bench", lab.Options{Nodes: 1})
	node := l.Nodes()[0]
	alone := memoryOf(b, node.AgentPID())

	names, err := l.CreateNodeObjects(b.Context(), manyNodes)
	must(b, err)
	must(b, createPods(b.Context(), l.Client(), names))
	metrics := newMetrics(node)
	within(b, 5*time.Minute, "agent that knows everything", func() error {
		return errors.Join(
			metrics.atLeast("sluice_network_peers ", manyNodes),
			metrics.atLeast("sluice_pods ", manyPods))
	})
	grown := memoryOf(b, node.AgentPID())

	node.KillAgent()
	must(b, node.StartAgent())
	must(b, node.WaitAgentReady(b.Context()))
	within(b, time.Minute, "agent that has found every node", func() error {
		return metrics.atLeast("sluice_network_peers ", manyNodes)
	})
	restarted := memoryOf(b, node.AgentPID())

	report(b, "alone", alone)
	report(b, fmt.Sprintf("nodes=%d,pods=%d", manyNodes, manyPods), grown)
	report(b, fmt.Sprintf("nodes=%d,pods=%d,restarted", manyNodes, manyPods), restarted)
}

// TestStartInLittleMemory: a start makes more garbage than there is memory, and gets along where
// there is a limit. Otherwise an agent that was killed for its memory would be killed again at each
// start. GOGC=off stands for a cluster that is far larger than this one.
func TestStartInLittleMemory(t *testing.T) {
	if !long {
		t.Skip("only with SLUICE_LONG=1: it takes minutes")
	}
	group := memorygroup.New(t)
	l, err := lab.Up(t.Context(),
		lab.Options{Name: fmt.Sprintf("little-%d", os.Getpid()), Nodes: 1, Progress: os.Stderr})
	must(t, err)
	t.Cleanup(func() { must(t, l.Down()) })
	node := l.Nodes()[0]
	names, err := l.CreateNodeObjects(t.Context(), manyNodes)
	must(t, err)
	must(t, createPods(t.Context(), l.Client(), names))
	const littleMemory, plenty = 64 << 20, 8 << 30
	for _, c := range []struct {
		what, env string
		limit     int64
		isKilled  bool
	}{
		{"without a limit", "AUTOMEMLIMIT=off", plenty, false},
		{"with a limit that the collector doesn't know", "AUTOMEMLIMIT=off", littleMemory, true},
		{"with the same limit", "NOTHING=", littleMemory, false},
	} {
		node.KillAgent()
		before, err := group.Kills()
		must(t, err)
		must(t, group.Limit(c.limit))
		node.LaunchAgentBy(append(group.Launcher(), "/usr/bin/env", "GOGC=off", c.env)...)
		must(t, node.StartAgent())
		metrics, kills := newMetrics(node), 0
		within(t, time.Minute, "agent that knows everything, or is killed", func() error {
			if kills, err = group.Kills(); err != nil || kills > before && node.AgentPID() == 0 {
				return err
			}
			return metrics.atLeast("sluice_pods ", manyPods)
		})
		used, err := group.Usage()
		must(t, err)
		t.Logf("%s: %d MiB", c.what, used>>20)
		if (kills > before) != c.isKilled {
			t.Errorf("%s: %d agents were killed", c.what, kills-before)
		}
	}
	node.KillAgent()
}

// memoryOf reads what a process has in memory now, and the most that it had.
func memoryOf(b *testing.B, pid int) map[string]float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(b, err)
	out := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(string(status))); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		unit := map[string]string{"VmRSS": "MiB", "VmHWM": "MiB-peak"}[key]
		if unit == "" {
			continue
		}
		kib, err := strconv.Atoi(strings.Fields(value)[0])
		must(b, err)
		out[unit] = float64(kib) / 1024
	}
	return out
}

// createPods makes pods that run on the named nodes, as far as the API server knows.
func createPods(ctx context.Context, c client.Client, nodes []string) error {
	const namespaces = manyPods / podsPerNamespace
	for i := range namespaces {
		err := c.Create(ctx,
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: manyNamespace(i)}})
		if err != nil {
			return fmt.Errorf("creating a namespace: %w", err)
		}
	}
	creating, ctx := errgroup.WithContext(ctx)
	creating.SetLimit(requestsAtOnce)
	for i := range manyPods {
		creating.Go(func() error { return createPod(ctx, c, i, nodes[i%len(nodes)]) })
	}
	return creating.Wait()
}

func manyNamespace(i int) string { return fmt.Sprintf("many-%d", i) }

func createPod(ctx context.Context, c client.Client, i int, node string) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: manyNamespace(i / podsPerNamespace),
			Name:      fmt.Sprintf("some-deployment-6c7d9f5b8-%05d", i),
			Labels: map[string]string{
				"app.kubernetes.io/name":    fmt.Sprintf("app-%d", i%20),
				"app.kubernetes.io/part-of": "something", "pod-template-hash": "6c7d9f5b8",
			},
		},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
			Name: "main", Image: "example.com/some/image:v1.2.3",
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			// without a reference
			Env: []corev1.EnvVar{{Name: "SOME_SETTING", Value: strings.Repeat("x", 500)}},
		}}},
	}
	if err := c.Create(ctx, pod); err != nil {
		return fmt.Errorf("creating pod %d: %w", i, err)
	}
	addr4 := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
	addr6 := netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x64, 14: byte(i >> 8), 15: byte(i)})
	running := pod.DeepCopy()
	running.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: addr4.String(),
		PodIPs: []corev1.PodIP{{IP: addr4.String()}, {IP: addr6.String()}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.Now()}},
	}
	if err := c.Status().Patch(ctx, running, client.MergeFrom(pod)); err != nil {
		return fmt.Errorf("giving pod %d its addresses: %w", i, err)
	}
	return nil
}

// metrics reads those of a node's agent.
type metrics struct{ client *http.Client }

func newMetrics(node *lab.Node) metrics {
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = node.Do(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	return metrics{&http.Client{Timeout: patience,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

func (m metrics) atLeast(series string, least float64) error {
	text, err := m.text()
	if err != nil {
		return err
	}
	return text.atLeast(series, least)
}

func (text scrape) atLeast(series string, least float64) error {
	value, err := text.sum(series)
	if err == nil && value < least {
		err = fmt.Errorf("%s is %g: expected at least %g", series, value, least)
	}
	return err
}

// scrape is the text of all metrics at one moment.
type scrape []byte

// sum is that of the series whose lines begin so.
func (text scrape) sum(series string) (float64, error) {
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, series) {
			continue
		}
		number, err := strconv.ParseFloat(
			strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
		if err != nil {
			return 0, fmt.Errorf("reading %q: %w", line, err)
		}
		sum, found = sum+number, true
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", series)
	}
	return sum, nil
}

// histogram is the one without labels that has this name.
func (text scrape) histogram(name string) (*dto.Histogram, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	if f := families[name]; f != nil && len(f.GetMetric()) == 1 {
		return f.GetMetric()[0].GetHistogram(), nil
	}
	return nil, fmt.Errorf("no histogram %s without labels", name)
}

func (m metrics) text() (scrape, error) { return m.get("/metrics") }

func (m metrics) get(path string) ([]byte, error) {
	response, err := m.client.Get("http://127.0.0.1:9808" + path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return io.ReadAll(response.Body)
}
