package policy

import (
	"testing"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

func TestPolicy(t *testing.T) { framework.Run(t, "policy") }
