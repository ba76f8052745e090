package framework

import (
	"os"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/onsi/gomega/format"
)

// Labels of specs, beside that of their suite (its name).
var (
	// Fast is on the part of each suite that runs for every change.
	Fast = ginkgo.Label("fast")
	// Disruptive is on specs that alter nodes or the agents. They must be Serial too.
	Disruptive = ginkgo.Label("disruptive")
	// OnKind is on specs that need the nodes to be containers of the local Docker.
	OnKind = ginkgo.Label("kind")
	// Table is on the tables of what policies mean, line by line. They take minutes, so of the
	// kinds of cluster that hack/e2e makes only the one with both families runs them whole.
	Table = ginkgo.Label("table")
	// Proxied is on specs of policy whose verdicts hang on what kube-proxy makes of a Service. They
	// run in each of its modes.
	Proxied = ginkgo.Label("proxied")
)

// Time limits. A node of a test cluster is busy: they are long, and only failures take them.
const (
	// Poll is how often conditions are looked at.
	Poll = 200 * time.Millisecond
	// Patience is how long a connection may take to become possible or impossible, and the default
	// of Eventually.
	Patience = 45 * time.Second
	// PodPatience is how long pods may take to become Ready or to be gone.
	PodPatience = 90 * time.Second
)

// Run runs the specs of a suite, which carry its name as a label. Without KUBECONFIG it skips. A
// test package calls it once, from its only Test function.
func Run(t *testing.T, name string) {
	t.Helper()
	if os.Getenv("KUBECONFIG") == "" {
		t.Skip("KUBECONFIG isn't set: these specs need a cluster")
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	gomega.SetDefaultEventuallyTimeout(Patience)
	gomega.SetDefaultEventuallyPollingInterval(Poll)
	gomega.SetDefaultConsistentlyPollingInterval(Poll)
	gomega.EnforceDefaultTimeoutsWhenUsingContexts()
	format.MaxLength = 20_000 // tables of connections
	// Before everything that removes what a spec made.
	ginkgo.JustAfterEach(func(ctx ginkgo.SpecContext) {
		if cluster, err := connected(); err == nil && ginkgo.CurrentSpecReport().Failed() {
			cluster.diagnose(ctx)
		}
	}, ginkgo.NodeTimeout(3*time.Minute))
	ginkgo.RunSpecs(t, name, ginkgo.Label(name))
}
