package install

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// read is what the agent may do with what it watches.
var read = []string{"get", "list", "watch"}

// permissions are all that the agent may do in the API (config/rbac).
var permissions = map[schema.GroupResource][]string{
	{Resource: "namespaces"}: read,
	{Resource: "nodes"}:      read,
	{Resource: "pods"}:       read,
	{Group: "networking.k8s.io", Resource: "networkpolicies"}: read,
	{Resource: "services"}:                                  {"list"},
	{Group: "discovery.k8s.io", Resource: "endpointslices"}: {"list"},
	{Resource: "events"}:                                    {"create", "patch"},
	{Group: "events.k8s.io", Resource: "events"}:            {"create", "patch"},
	// where the cluster has them
	{Group: "policy.networking.k8s.io", Resource: "clusternetworkpolicies"}: read,
}

// undocumented are verbs that the API server checks but doesn't list.
var undocumented = map[schema.GroupResource][]string{
	{Resource: "users"}:           {"impersonate"},
	{Resource: "groups"}:          {"impersonate"},
	{Resource: "serviceaccounts"}: {"impersonate"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterroles"}: {"bind", "escalate"},
}

// everyones are the questions about oneself that every user of every cluster may ask
// (system:basic-user).
var everyones = []schema.GroupResource{
	{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
	{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
	{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"},
}

var _ = ginkgo.Describe("The agent's permissions", framework.Fast, func() {
	ginkgo.It("are those of its manifest and no others", func(ctx ginkgo.SpecContext) {
		cluster := framework.Cluster()
		agents := agentSet(ctx, gomega.Default, cluster)
		gomega.Expect(agents.Spec.Template.Spec.ServiceAccountName).
			To(gomega.Equal(framework.AgentName))
		var wrong []string
		asked, allowed := 0, 0
		for _, namespace := range []string{metav1.NamespaceAll, framework.AgentNamespace} {
			for _, answer := range ask(ctx, cluster, namespace) {
				asked++
				if answer.allowed {
					allowed++
				}
				if want := slices.Contains(permissions[answer.resource],
					answer.verb); answer.allowed != want {
					wrong = append(wrong, fmt.Sprintf("%s %s in namespace %q: allowed %v, want %v",
						answer.verb, answer.resource, namespace, answer.allowed, want))
				}
			}
		}
		gomega.Expect(wrong).To(gomega.BeEmpty())
		// The control: the questions were about what exists, and the answers not all the same.
		ginkgo.AddReportEntry("access reviews", fmt.Sprintf("%d asked, %d allowed", asked, allowed))
		watched := 4
		if _, err := cluster.Client.Discovery().ServerResourcesForGroupVersion(
			"policy.networking.k8s.io/v1beta1"); err == nil {
			watched++
		}
		gomega.Expect(allowed).To(gomega.Equal(2*(watched*len(read)+2*2+2*1)), "allowed answers")
	}, ginkgo.SpecTimeout(2*time.Minute))

	ginkgo.It("in the kernel are two capabilities", framework.OnKind, func(ctx ginkgo.SpecContext) {
		cluster := framework.Cluster()
		kind := cluster.RequireKind()
		const statusOfAgents = `for p in /proc/[0-9]*; do
			if [ "$(cat $p/comm 2>/dev/null)" = sluice-agent ]; then cat $p/status; fi
		done`
		for _, node := range cluster.Nodes(ctx) {
			status, err := kind.Exec(ctx, node.Name, "sh", "-c", statusOfAgents)
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			lines := strings.Split(strings.ReplaceAll(status, "\t", " "), "\n")
			gomega.Expect(lines).To(gomega.ContainElements(
				// NET_ADMIN and NET_RAW
				"CapEff: 0000000000003000", "CapPrm: 0000000000003000", "CapBnd: 0000000000003000",
				"CapInh: 0000000000000000", "CapAmb: 0000000000000000", "NoNewPrivs: 1",
				"Seccomp: 2"), "the agent on %s", node.Name)
		}
	}, ginkgo.SpecTimeout(time.Minute))
})

// answer says whether the agent may do something.
type answer struct {
	resource schema.GroupResource
	verb     string
	allowed  bool
}

// ask asks the API server about every verb of every resource that it serves, in a namespace (that
// of all: cluster-wide).
func ask(ctx context.Context, cluster *framework.TheCluster, namespace string) []answer {
	resources := served(cluster)
	keys := slices.SortedFunc(maps.Keys(resources), func(a, b schema.GroupResource) int {
		return strings.Compare(a.String(), b.String())
	})
	var questions []answer
	for _, resource := range keys {
		if !slices.Contains(everyones, resource) {
			for _, verb := range resources[resource] {
				questions = append(questions, answer{resource: resource, verb: verb})
			}
		}
	}
	next := make(chan *answer)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			defer ginkgo.GinkgoRecover()
			for question := range next {
				question.allowed = mayAgent(ctx, cluster, namespace, question.resource,
					question.verb)
			}
		})
	}
	for i := range questions {
		next <- &questions[i]
	}
	close(next)
	workers.Wait()
	return questions
}

// served are the resources of the API server, subresources included, with their verbs.
func served(cluster *framework.TheCluster) map[schema.GroupResource][]string {
	_, lists, err := cluster.Client.Discovery().ServerGroupsAndResources()
	gomega.Expect(err).NotTo(gomega.HaveOccurred(), "finding out what the API server serves")
	resources := maps.Clone(undocumented)
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		for _, resource := range list.APIResources {
			key := schema.GroupResource{Group: version.Group, Resource: resource.Name}
			verbs := append(slices.Clone(resource.Verbs), resources[key]...)
			slices.Sort(verbs)
			resources[key] = slices.Compact(verbs)
		}
	}
	for _, known := range []schema.GroupResource{{Resource: corev1.ResourceSecrets.String()},
		{Resource: "nodes/status"}, {Resource: "pods/exec"}} {
		gomega.Expect(resources).To(gomega.HaveKey(known))
	}
	return resources
}

func mayAgent(ctx context.Context, cluster *framework.TheCluster, namespace string,
	resource schema.GroupResource, verb string) bool {
	name, subresource, _ := strings.Cut(resource.Resource, "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + framework.AgentNamespace + ":" + framework.AgentName,
		Groups: []string{"system:serviceaccounts",
			"system:serviceaccounts:" + framework.AgentNamespace, "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: resource.Group, Resource: name,
			Subresource: subresource,
		},
	}}
	var allowed bool
	gomega.Eventually(ctx, func(ctx context.Context) error {
		answered, err := cluster.Client.AuthorizationV1().SubjectAccessReviews().
			Create(ctx, review, metav1.CreateOptions{})
		if err == nil {
			allowed = answered.Status.Allowed
		}
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "asking whether the agent may %s %s", verb,
		resource)
	return allowed
}
