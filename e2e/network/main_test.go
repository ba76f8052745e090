package network

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/e2e/assets"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e/network: not root: tests with a lab are skipped")
	} else if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// build makes everything that the tests run, so that their time limits are about what they test.
func build() error {
	fmt.Fprintln(os.Stderr, "e2e/network: these tests run labs; what is missing is built")
	if _, err := assets.ControlPlane(context.Background(), os.Stderr); err != nil {
		return err
	}
	_, err := assets.Wiring(context.Background(), os.Stderr, false)
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
