package policy

import (
	"context"
	"fmt"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/suite/framework"
	"github.com/sluice-net/sluice/test/cases"
)

// The cases of test/cases, with their pods on one node and on two. Their hosts outside are nodes
// that none of their pods runs on: to a policy another node is outside the pod network.
var _ = ginkgo.Describe("meaning", framework.Table, ginkgo.Ordered, ginkgo.ContinueOnFailure,
	func() {
		var servers *world // on every node, made once: its ports can be had once

		ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
			servers = newNodeServers(ctx)
		}, ginkgo.NodeTimeout(framework.PodPatience*2))

		for _, apart := range []bool{false, true} {
			placement := map[bool]string{false: "on one node", true: "on two nodes"}[apart]
			ginkgo.Context(placement, func() {
				var w *meaningWorld

				ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) {
					w = newMeaningWorld(ctx, servers, apart)
				}, ginkgo.NodeTimeout(framework.PodPatience*2))

				ginkgo.It("every flow connects without policies", func(ctx ginkgo.SpecContext) {
					w.control(ctx)
				}, ginkgo.SpecTimeout(framework.Patience*3))

				for _, tc := range cases.All() {
					ginkgo.It(tc.Line+": "+tc.Name, func(ctx ginkgo.SpecContext) {
						w.run(ctx, tc)
					}, ginkgo.SpecTimeout(framework.Patience*2))
				}

				ginkgo.It("every flow connects once the policies are gone",
					func(ctx ginkgo.SpecContext) {
						w.control(ctx)
					}, ginkgo.SpecTimeout(framework.Patience*3))
			})
		}
	})

// run holds the world to a case. What was applied is deleted after the spec.
func (w *meaningWorld) run(ctx context.Context, tc cases.Case) {
	if tc.NoServer {
		w.expectRefusedByServer(ctx, tc)
		return
	}
	if why := w.unfit(tc); why != "" {
		ginkgo.Skip(why)
	}
	allowed, leftOut := w.cellsOf(tc.Allow)
	denied, alsoLeftOut := w.cellsOf(tc.Deny)
	if leftOut = append(leftOut, alsoLeftOut...); len(leftOut) > 0 {
		ginkgo.AddReportEntry("flows left out", strings.Join(leftOut, "\n"))
	}
	w.apply(ctx, w.render(tc.Policies))
	cells := append(all(allowed, true), all(denied, false)...)
	if len(cells) == 0 {
		ginkgo.Skip("this cluster can't carry any of the case's flows: " +
			strings.Join(leftOut, "; "))
	}
	w.expect(ctx, cells)
}

// expectRefusedByServer has the API server refuse every policy of a case, and skips: what isn't let
// in means nothing here.
func (w *meaningWorld) expectRefusedByServer(ctx context.Context, tc cases.Case) {
	var refused []string
	for _, np := range w.world.render(tc.Policies) {
		_, err := w.cluster.Client.NetworkingV1().NetworkPolicies(np.Namespace).
			Create(ctx, np, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			ginkgo.Skip(fmt.Sprintf("this API server lets in what newer ones refuse (%v): such "+
				"policies are tested with packets in controllers", np.Spec))
		}
		gomega.Expect(apierrors.IsInvalid(err)).
			To(gomega.BeTrue(), "creating %s/%s: %v", np.Namespace, np.Name, err)
		refused = append(refused, err.Error())
	}
	ginkgo.Skip("the API server refuses what is unreadable: " + strings.Join(refused, "; "))
}

// control holds every flow of every case to a connection.
func (w *meaningWorld) control(ctx context.Context) {
	seen := map[string]bool{}
	var cells []*cell
	for _, tc := range cases.All() {
		if tc.NoServer || w.unfit(tc) != "" {
			continue
		}
		for _, flows := range [][]string{tc.Allow, tc.Deny} {
			some, _ := w.cellsOf(flows)
			for _, c := range some {
				if key := c.from + c.target(); !seen[key] {
					seen[key] = true
					cells = append(cells, c)
				}
			}
		}
	}
	w.expect(ctx, all(cells, true))
}
