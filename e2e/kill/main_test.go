package kill

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/internal/killpoint"
)

var programs assets.Programs // what labs run

func TestMain(m *testing.M) {
	killpoint.Launch()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e/kill: not root: tests with a lab are skipped")
	} else if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// build makes everything that the tests run, so that their time limits are about what they test.
func build() error {
	fmt.Fprintln(os.Stderr, "e2e/kill: these tests run labs; what is missing is built")
	if _, err := assets.ControlPlane(context.Background(), os.Stderr); err != nil {
		return err
	}
	var err error
	programs, err = assets.Wiring(context.Background(), os.Stderr, false)
	return err
}
