package install

import (
	"testing"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

func TestInstall(t *testing.T) { framework.Run(t, "install") }
