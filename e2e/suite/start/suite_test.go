package start

import (
	"testing"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

func TestStart(t *testing.T) { framework.Run(t, "start") }
