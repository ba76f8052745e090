package network

import (
	"testing"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

func TestNetwork(t *testing.T) { framework.Run(t, "network") }
