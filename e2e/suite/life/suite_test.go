package life

import (
	"testing"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

func TestLife(t *testing.T) { framework.Run(t, "life") }
