package life

import (
	"context"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// Where the kubelet of the control plane finds the API server, and where it doesn't.
const (
	apiServerManifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	apiServerAside    = "/etc/kubernetes/kube-apiserver.yaml"
)

// steadyAway is how long the API server stays away once the new agent runs.
const steadyAway = 15 * time.Second

// withoutAPIServer takes the API server away, kills the near node's agent, checks that another one
// comes and leaves the rules exactly as they are, and restores the API server.
func (w *world) withoutAPIServer(ctx context.Context) {
	kind := w.cluster.RequireKind()
	// A new pod: kubelet would wait before it starts one again that other specs have killed.
	replaced := time.Now()
	deleteAgent(ctx, w.cluster, w.near, nil)
	waitAgent(ctx, w.cluster, w.near, replaced)
	move := func(ctx context.Context, from, to string) {
		_, err := kind.Exec(ctx, kind.ControlPlane(), "sh", "-c",
			"if [ -e "+from+" ]; then mv "+from+" "+to+"; fi")
		gomega.ExpectWithOffset(2, err).
			NotTo(gomega.HaveOccurred(), "moving the API server's manifest")
	}
	restore := func(ctx context.Context) {
		move(ctx, apiServerAside, apiServerManifest)
		w.awaitAPIServer(ctx)
	}
	ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) {
		restore(ctx)
	}, ginkgo.NodeTimeout(4*time.Minute))
	defer restore(ctx) // also after a failure, which is to be diagnosed
	move(ctx, apiServerManifest, apiServerAside)
	gomega.EventuallyWithOffset(1, ctx, func() error {
		return w.ping(ctx)
	}).WithContext(ctx).WithTimeout(90*time.Second).
		ShouldNot(gomega.Succeed(), "the API server goes away")
	away := time.Now()

	before := w.rules(ctx, kind)
	gomega.ExpectWithOffset(1, before).
		To(gomega.ContainSubstring("hook forward"), "the rules of %s", w.near)
	old := onAgents(ctx, kind, w.near, `echo "$pid"`)
	killAgent(ctx, w.cluster, w.near)
	gomega.EventuallyWithOffset(1, ctx, func() string {
		return onAgents(ctx, kind, w.near, `echo "$pid"`)
	}).WithContext(ctx).
		ShouldNot(gomega.Or(gomega.BeEmpty(), gomega.Equal(old)),
			"another agent comes on %s", w.near)
	back := time.Now()
	steadily(ctx, steadyAway, func() error {
		gomega.Expect(onAgents(ctx, kind, w.near, `echo "$pid"`)).
			NotTo(gomega.BeEmpty(), "the new agent stays")
		return nil
	})
	gomega.ExpectWithOffset(1, w.rules(ctx, kind)).To(gomega.Equal(before),
		"the rules of %s, where the agent waits for the API server", w.near)

	gomega.ExpectWithOffset(1, w.ping(ctx)).NotTo(gomega.Succeed(), "the API server is away still")
	restore(ctx)
	ginkgo.GinkgoWriter.Printf("the API server was away for %s; the agent came back after %s\n",
		time.Since(away), back.Sub(away))
}

// rules are those of the near node, without counters, without what meters write into sets by
// themselves, and without the first lines, which name the table's owner: it has none between two
// agents.
func (w *world) rules(ctx context.Context, kind *framework.Kind) string {
	rules, err := kind.Exec(ctx, w.near, "nft", "--stateless", "list", "table", "inet", "sluice")
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	_, content, _ := strings.Cut(rules, "\n")
	if flags, rest, _ := strings.Cut(content, "\n"); strings.HasPrefix(flags, "\tflags") {
		content = rest
	}
	return strings.TrimSpace(content)
}

// ping asks the API server whether it is ready.
func (w *world) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return w.cluster.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// awaitAPIServer waits until the API server is ready.
func (w *world) awaitAPIServer(ctx context.Context) {
	gomega.EventuallyWithOffset(1, ctx, func() error {
		return w.ping(ctx)
	}).WithContext(ctx).WithTimeout(3*time.Minute).
		Should(gomega.Succeed(), "the API server is ready again")
}
