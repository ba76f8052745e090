package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// grownUp is how long after it became Ready a client must always be let in. Until then other nodes
// may still learn of it.
const grownUp = 2 * time.Second

// heardOf is how long a client is Ready before its log must have something to say.
const heardOf = 5 * time.Second

// The roles of the pods: servers let only friends in.
const (
	serverRole, friendRole, strangerRole = "server", "friend", "stranger"
)

// Deployments of servers and of their clients are scaled and rolled. Clients connect all the time,
// through a Service; beside that, a friend and a stranger are sent to the servers' own addresses as
// soon as there are any.
var _ = ginkgo.Describe("Deployments", func() {
	ginkgo.It("are scaled and rolled: strangers never get in, friends always do", framework.Proxied,
		func(ctx ginkgo.SpecContext) {
			r := newRollout(ctx)
			strangers, friends := follow(r.cluster, r.namespace, "role="+strangerRole),
				follow(r.cluster, r.namespace, "role="+friendRole)
			direct := r.direct(ctx)

			for _, step := range []struct {
				what            string
				servers, others int32 // replicas
				roll            []string
			}{
				{"servers are scaled up", 6, 3, nil},
				{"servers are scaled down", 2, 3, nil},
				{"servers are rolled", 3, 3, []string{serverRole}},
				{"friends are rolled", 3, 3, []string{friendRole}},
				{"friends are scaled up", 3, 6, nil},
				{"friends are scaled down, and all are rolled at once", 3, 3,
					[]string{serverRole, friendRole}},
			} {
				began := time.Now()
				ginkgo.By(step.what)
				r.change(ctx, serverRole, step.servers, step.roll)
				r.change(ctx, friendRole, step.others, step.roll)
				r.settled(ctx, serverRole)
				r.settled(ctx, friendRole)
				r.stays(ctx, step.servers)
				ginkgo.GinkgoLogr.Info(step.what, "took", time.Since(began).String())
			}

			ginkgo.By("everything is judged")
			directly := direct()
			r.removeClients(ctx)
			judgeStrangers(strangers.end(ctx))
			judgeFriends(friends.end(ctx))
			ginkgo.AddReportEntry("direct attempts", directly.String())
			gomega.Expect(directly.wrong).
				To(gomega.BeEmpty(), "attempts at the servers' own addresses")
			gomega.Expect(directly.strangers).
				To(gomega.BeNumerically(">", 20), "attempts of the stranger")
			gomega.Expect(directly.friends).
				To(gomega.BeNumerically(">", 20), "attempts of the friend")
		}, ginkgo.SpecTimeout(8*time.Minute))
})

// rollout is two Deployments, server and friend, and single pods: strangers on every worker, and
// one friend and one stranger to send to the servers' own addresses.
type rollout struct {
	*world

	namespace string
	service   []string // targets, one for each family
}

func newRollout(ctx context.Context) *rollout {
	r := &rollout{world: newWorld()}
	r.world.namespace(ctx, "shop", nil)
	r.namespace = r.namespaces["shop"]
	r.apply(ctx, r.render(map[string]string{
		"shop/deny":    `{podSelector: {}}`,
		"shop/friends": `{podSelector: {matchLabels: {role: server}}, ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}, {podSelector: {matchLabels: {sent: friend}}}], ports: [{port: 80}]}]}`,
	}))
	workers := r.cluster.Workers(ctx)
	r.start(ctx,
		member{name: "shop/sent-friend", node: workers[0].Name,
			labels: map[string]string{"sent": friendRole}},
		member{name: "shop/sent-stranger", node: workers[0].Name,
			labels: map[string]string{"sent": strangerRole}})
	r.serve(ctx)
	// Ending servers answer until kube-proxy has heard of it, also on a node that is too busy to
	// hear soon: the rest is Sluice's.
	r.deploy(ctx, serverRole, 3, 20, "serve", "--serve", "tcp/80", "--linger", "15s")
	r.settled(ctx, serverRole)

	watch := func(expect string) []string {
		args := []string{"watch", "--expect", expect}
		for _, target := range r.service {
			args = append(args, "--target", target)
		}
		return args
	}
	r.deploy(ctx, friendRole, 3, 5, watch("ok")...)
	for _, worker := range workers {
		r.cluster.CreatePod(ctx, r.namespace, framework.PodOptions{
			Node: worker.Name, Labels: map[string]string{"role": strangerRole},
			Args: watch("refused"),
		})
	}
	r.settled(ctx, friendRole)
	framework.ExpectReaches(ctx, r.pods["shop/sent-friend"], r.service...)
	framework.ExpectRefused(ctx, r.pods["shop/sent-stranger"], r.service...)
	return r
}

// serve makes the servers' Service.
func (r *rollout) serve(ctx context.Context) {
	families := corev1.IPFamilyPolicyPreferDualStack
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: serverRole},
		Spec: corev1.ServiceSpec{
			IPFamilyPolicy: &families, Selector: map[string]string{"role": serverRole},
			Ports: []corev1.ServicePort{{Port: 80 + serviceOffset,
				TargetPort: intstr.FromInt32(80)}},
		},
	}
	r.cluster.Apply(ctx, service)
	for _, family := range r.cluster.Families {
		r.service = append(r.service,
			serviceTarget(service, testprogram.Port{Protocol: testprogram.TCP, Number: 80}, family))
	}
}

// deploy makes a Deployment of the test program, in containers like that of any test pod.
func (r *rollout) deploy(ctx context.Context, role string, replicas int32, grace int64,
	args ...string) {
	container := r.pods["shop/sent-friend"].Object(ctx).Spec.Containers[0].DeepCopy()
	container.Args = args
	if role == serverRole {
		container.ReadinessProbe = &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{
				TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(80)}},
			PeriodSeconds: 1, TimeoutSeconds: 2,
		}
	}
	no, labels := false, map[string]string{"role": role}
	r.cluster.Apply(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: role},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: new(intstr.FromInt32(1)), MaxUnavailable: new(intstr.FromInt32(0)),
			}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
					TerminationGracePeriodSeconds: &grace,
					Containers:                    []corev1.Container{*container},
					TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
						MaxSkew: 1, TopologyKey: corev1.LabelHostname,
						WhenUnsatisfiable: corev1.ScheduleAnyway,
						LabelSelector:     &metav1.LabelSelector{MatchLabels: labels},
					}},
				},
			},
		},
	})
}

// change sets the replicas of a Deployment, and rolls it if its role is among those.
func (r *rollout) change(ctx context.Context, role string, replicas int32, roll []string) {
	template := ""
	for _, rolled := range roll {
		if rolled == role {
			template = fmt.Sprintf(`,"template":{"metadata":{"annotations":{"rolled":%q}}}`,
				time.Now().Format(time.RFC3339Nano))
		}
	}
	patch := fmt.Sprintf(`{"spec":{"replicas":%d%s}}`, replicas, template)
	_, err := r.cluster.Client.AppsV1().Deployments(r.namespace).
		Patch(ctx, role, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred(), "changing Deployment %s", role)
}

// settled waits until a Deployment is what it is meant to be, and the pods that it no longer wants
// are gone.
func (r *rollout) settled(ctx context.Context, role string) {
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega, ctx context.Context) {
		d, err := r.cluster.Client.AppsV1().Deployments(r.namespace).
			Get(ctx, role, metav1.GetOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(d.Status.ObservedGeneration).To(gomega.BeNumerically(">=", d.Generation))
		for what, have := range map[string]int32{
			"all": d.Status.Replicas, "updated": d.Status.UpdatedReplicas,
			"available": d.Status.AvailableReplicas,
		} {
			g.Expect(have).To(gomega.Equal(*d.Spec.Replicas), "%s replicas of %s", what, role)
		}
		pods, err := r.cluster.Client.CoreV1().Pods(r.namespace).
			List(ctx, metav1.ListOptions{LabelSelector: "role=" + role})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(pods.Items).To(gomega.HaveLen(int(*d.Spec.Replicas)),
			"pods of %s, with those that are ending", role)
	}).WithContext(ctx).WithTimeout(framework.PodPatience).Should(gomega.Succeed())
}

// stays watches that all servers remain available, for long enough that every friend is grown up
// and has been judged a few times.
func (r *rollout) stays(ctx context.Context, servers int32) {
	gomega.ConsistentlyWithOffset(1, ctx, func(g gomega.Gomega, ctx context.Context) {
		d, err := r.cluster.Client.AppsV1().Deployments(r.namespace).
			Get(ctx, serverRole, metav1.GetOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(d.Status.AvailableReplicas).To(gomega.Equal(servers), "servers that are available")
	}).WithContext(ctx).WithTimeout(2 * grownUp).Should(gomega.Succeed())
}

// removeClients deletes the pods whose logs are followed, so that these end.
func (r *rollout) removeClients(ctx context.Context) {
	r.cluster.Remove(ctx,
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: friendRole}})
	gomega.Expect(r.cluster.Client.CoreV1().Pods(r.namespace).
		DeleteCollection(ctx, metav1.DeleteOptions{},
			metav1.ListOptions{LabelSelector: "role=" + strangerRole})).To(gomega.Succeed())
}

// directAttempts is what came of sending clients to the servers' own addresses.
type directAttempts struct {
	rounds, strangers, friends int
	wrong                      []string
}

// String is for the report.
func (d *directAttempts) String() string {
	return fmt.Sprintf(
		"%d rounds; %d attempts of the stranger and %d of the friend, %d of them wrong", d.rounds,
		d.strangers, d.friends, len(d.wrong))
}

// direct begins to send a stranger to every server that has an address, and a friend to every one
// that is Ready and isn't ending, over and over. The function it returns ends that.
func (r *rollout) direct(ctx context.Context) func() *directAttempts {
	out := &directAttempts{}
	var enough atomic.Bool
	var sending sync.WaitGroup
	sending.Go(func() {
		for !enough.Load() && ctx.Err() == nil {
			if err := r.sendBoth(ctx, out); err != nil {
				out.wrong = append(out.wrong, err.Error())
				return
			}
		}
	})
	end := func() *directAttempts {
		enough.Store(true)
		sending.Wait()
		return out
	}
	ginkgo.DeferCleanup(func() { end() })
	return end
}

// sendBoth is one round of direct. An ending server answers for a while: a friend that finds it
// Ready is in time.
func (r *rollout) sendBoth(ctx context.Context, out *directAttempts) error {
	list, err := r.cluster.Client.CoreV1().Pods(r.namespace).
		List(ctx, metav1.ListOptions{LabelSelector: "role=" + serverRole})
	if err != nil {
		return err
	}
	var known, ready []string
	for i := range list.Items {
		pod := &list.Items[i]
		for _, addr := range addressesOf(pod) {
			known = append(known, framework.Target("tcp", addr, 80))
			if isReady(pod) && pod.DeletionTimestamp == nil {
				ready = append(ready, framework.Target("tcp", addr, 80))
			}
		}
	}
	var strangers, friends []testprogram.Result
	var strangerErr, friendErr error
	var both sync.WaitGroup
	both.Go(func() {
		strangers, strangerErr = r.pods["shop/sent-stranger"].TryConnect(ctx, known...)
	})
	both.Go(func() { friends, friendErr = r.pods["shop/sent-friend"].TryConnect(ctx, ready...) })
	both.Wait()
	if err := errors.Join(strangerErr, friendErr); err != nil {
		return err
	}
	out.rounds++
	out.strangers += len(strangers)
	out.friends += len(friends)
	for _, result := range strangers {
		if result.OK || result.Kind == testprogram.NoReply {
			out.wrong = append(out.wrong, "the stranger got in: "+result.String())
		}
	}
	for _, result := range friends {
		if !result.OK {
			out.wrong = append(out.wrong, "the friend didn't get in: "+result.String())
		}
	}
	return nil
}

// judgeStrangers: none of their attempts may succeed.
func judgeStrangers(pods []*followed) {
	var report, wrong []string
	for _, one := range pods {
		report = append(report, one.String())
		gomega.Expect(one.attempts).To(gomega.BeNumerically(">", 50), "attempts of %s", one)
		for _, attempt := range one.odd {
			if attempt.OK || attempt.Kind == testprogram.NoReply {
				wrong = append(wrong, fmt.Sprintf("%s at %s: %s", one.name,
					attempt.At.Format(time.RFC3339Nano), attempt.Result))
			}
		}
		gomega.Expect(one.succeeded).To(gomega.BeZero(), "%s", one)
	}
	ginkgo.AddReportEntry("strangers", strings.Join(report, "\n"))
	gomega.Expect(pods).NotTo(gomega.BeEmpty())
	gomega.Expect(wrong).To(gomega.BeEmpty(), "strangers got in")
}

// judgeFriends: once Ready for a while, none of their attempts may be refused. Refusals of younger
// ones are reported, and so are answers that came too late after a handshake: those clients were
// let in, by servers that a busy node kept waiting.
func judgeFriends(pods []*followed) {
	var report, wrong []string
	attempts, young, late, latest := 0, 0, 0, time.Duration(0)
	for _, one := range pods {
		if one.lived() > heardOf {
			gomega.Expect(one.attempts).NotTo(gomega.BeZero(),
				"attempts of %s: was its log lost?", one)
		}
		attempts += one.attempts
		line := one.String()
		for _, attempt := range one.odd {
			if attempt.Kind == testprogram.NoReply {
				late++
				continue
			}
			// The condition's time is cut to the second, so the pod may be younger by up to that;
			// and the API server knew first.
			since := one.ready.Add(time.Second)
			if one.seenReady.After(since) {
				since = one.seenReady
			}
			age := attempt.At.Sub(since)
			if one.ready.IsZero() || age < grownUp {
				young++
				latest = max(latest, age)
				continue
			}
			wrong = append(wrong, fmt.Sprintf("%s on %s, Ready for %v, at %s, after %.3f s: %s",
				one.name, one.node, age, attempt.At.Format(time.RFC3339Nano), attempt.Seconds,
				attempt.Result))
		}
		if len(one.odd) > 0 {
			line += fmt.Sprintf(", %d odd", len(one.odd))
		}
		report = append(report, line)
	}
	ginkgo.AddReportEntry("friends", fmt.Sprintf(
		"%d pods, %d attempts; %d refusals of pods that had been Ready for less than %v (the "+
			"last one when Ready for at least %v); %d late answers\n%s",
		len(pods), attempts, young, grownUp, max(latest, 0), late, strings.Join(report, "\n")))
	gomega.Expect(len(pods)).To(gomega.BeNumerically(">=", 12), "friends that ran")
	gomega.Expect(attempts).To(gomega.BeNumerically(">", 500), "attempts of friends")
	gomega.Expect(late).To(gomega.BeNumerically("<=", attempts/100), "answers that came too late")
	gomega.Expect(wrong).To(gomega.BeEmpty(),
		"friends that were refused although they had been Ready for %v", grownUp)
}
