package foreign

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/e2e/assets"
)

// plugins is the folder of all plugins, ours among them, and kubeProxy the program.
var plugins, kubeProxy string

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e/foreign: not root: tests with a lab are skipped")
	} else if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// build makes everything that the tests run, so that their time limits are about what they test.
func build() error {
	fmt.Fprintln(os.Stderr, "e2e/foreign: these tests run a lab, the stock CNI plugins, "+
		"multus and kube-proxy; what is missing is built")
	if _, err := assets.ControlPlane(context.Background(), os.Stderr); err != nil {
		return err
	}
	if _, err := assets.Wiring(context.Background(), os.Stderr, false); err != nil {
		return err
	}
	programs, err := assets.Foreign(context.Background(), os.Stderr)
	plugins, kubeProxy = programs.Plugins, programs.KubeProxy
	return err
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
}

// labName is a lab's name that no other process has.
func labName(short string) string { return fmt.Sprintf("%s-%d", short, os.Getpid()) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// split takes a pod's namespace/name apart.
func split(name string) (namespace, short string) {
	namespace, short, _ = strings.Cut(name, "/")
	return namespace, short
}
