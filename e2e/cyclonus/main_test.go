package cyclonus

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/sluice-net/sluice/e2e/assets"
)

func TestMain(m *testing.M) {
	// cyclonus logs every step; the tests report failures in full
	logrus.SetLevel(logrus.PanicLevel)
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e/cyclonus: not root: tests with a lab are skipped")
	} else if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// build makes what a lab runs, so that no test's time is spent on it.
func build() error {
	if _, err := assets.ControlPlane(context.Background(), os.Stderr); err != nil {
		return err
	}
	_, err := assets.Wiring(context.Background(), os.Stderr, false)
	return err
}
