package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/e2e/assets"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e/lab: not root: tests with a lab are skipped")
	} else if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// build makes everything that the tests run, so that their time limits are about what they test.
func build() error {
	fmt.Fprintln(os.Stderr, "e2e/lab: these tests run etcd, kube-apiserver, sluice-agent, "+
		"sluice, labpod and the stock ptp plugin; what is missing is built")
	_, err := assets.ControlPlane(context.Background(), os.Stderr)
	for _, stock := range []bool{true, false} {
		if err == nil {
			_, err = assets.Wiring(context.Background(), os.Stderr, stock)
		}
	}
	return err
}

// testName is a lab's name that no other process has.
func testName(suffix string) string { return fmt.Sprintf("t%d-%s", os.Getpid(), suffix) }

// newTestLab brings up a lab that ends with the test.
func newTestLab(t *testing.T, options Options) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	options.Progress = t.Output()
	ctx := within(t, time.Minute)
	l, err := Up(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, node := range l.Nodes() {
				t.Logf("agent of %s:\n%s", node.Name(), node.AgentLog())
			}
		}
		if err := l.Down(); err != nil {
			t.Errorf("removing the lab: %v", err)
		}
	})
	return l
}

// within is a context that ends with the test, or after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// podManifest is a pod with ports such as "80" and "53/udp". Extra lines go below metadata.
func podManifest(namespace, name, node string, annotations map[string]string,
	ports ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Pod\nmetadata:\n  namespace: %s\n  name: %s\n  "+
		"annotations:\n    lab: test\n", namespace, name)
	for key, value := range annotations {
		fmt.Fprintf(&b, "    %s: %q\n", key, value)
	}
	fmt.Fprintf(&b, "spec:\n  nodeName: %q\n  containers:\n  - name: main\n    image: none\n", node)
	for i, port := range ports {
		if i == 0 {
			b.WriteString("    ports:\n")
		}
		number, protocol, found := strings.Cut(port, "/")
		if !found {
			protocol = "tcp"
		}
		fmt.Fprintf(&b, "    - {containerPort: %s, protocol: %s}\n", number,
			strings.ToUpper(protocol))
	}
	return b.String()
}

// wantMatrix demands that exactly the connections between places that connects allows work, and the
// others are denied.
func wantMatrix(t *testing.T, l *View, cells int, connects func(from, to string) bool) {
	t.Helper()
	matrix, err := l.Probe(t.Context(), nil, nil)
	must(t, err)
	if len(matrix.Cells) != cells {
		t.Errorf("%d connections were tried, want %d", len(matrix.Cells), cells)
	}
	for _, cell := range matrix.Cells {
		want := connects(cell.From, cell.To)
		if want && !cell.Result.OK { // a busy machine isn't a denial
			cell.Result = l.Reach(t.Context(), cell.From, cell.Protocol, cell.Dst)
		}
		if cell.Result.OK != want || !want && !cell.Denied() {
			t.Errorf("%s -> %s %s %s: got %s, want connect %v", cell.From, cell.To, cell.Protocol,
				cell.Dst, cell.Result, want)
		}
	}
	if t.Failed() {
		t.Logf("\n%s%s", matrix, Legend)
	}
}
