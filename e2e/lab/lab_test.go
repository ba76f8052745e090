package lab

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab/kubelet"
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/proxy"
	"github.com/sluice-net/sluice/e2e/lab/wait"
	"github.com/sluice-net/sluice/test/probe"
)

const twoNamespaces = `
apiVersion: v1
kind: Namespace
metadata: {name: dev}
---
apiVersion: v1
kind: Namespace
metadata: {name: prod}
`

const denyIngressInDev = `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: dev}
spec: {podSelector: {}, policyTypes: [Ingress]}
`

func everywhere(string, string) bool { return true }

// Without the agent there is no policy, so that what doesn't connect with it doesn't for its sake.
func TestWithoutAgentEverythingConnects(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("noagent"), NoAgent: true})
	must(t, l.Apply(t.Context(), twoNamespaces+denyIngressInDev+
		podManifest("dev", "a", "node1", nil, "80", "53/udp", "9000/sctp")+
		podManifest("prod", "b", "node2", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second)))
	// From 2 pods, 2 nodes and outside to 4 ports of pods and one outside, over 2 families.
	wantMatrix(t, l.View, 5*5*2, everywhere)
}

func TestPolicyDecides(t *testing.T) {
	t.Parallel()
	for _, families := range []Families{DualStack, IPv4, IPv6} {
		t.Run(string(families), func(t *testing.T) {
			t.Parallel()
			l := newTestLab(t, Options{Name: testName(string(families)), Families: families})
			factor := len(only(l.plan.pods, 4, 6))
			// Round robin: both namespaces have a pod on each node.
			must(t, l.Apply(t.Context(), twoNamespaces+
				podManifest("dev", "a", "", nil, "80", "53/udp")+
				podManifest("dev", "b", "", nil, "9000/sctp")+
				podManifest("prod", "c", "", nil, "80")+podManifest("prod", "d", "", nil, "80")))
			must(t, l.WaitReady(within(t, 20*time.Second)))
			wantMatrix(t, l.View, 7*6*factor, everywhere)

			must(t, l.Apply(t.Context(), denyIngressInDev))
			denied := map[string]probe.Option{"prod/c": probe.WithTimeout(probeTimeout),
				Outside: probe.WithTimeout(probeTimeout)}
			pod, err := l.Pod("dev/a")
			must(t, err)
			for from, option := range denied {
				must(t, wait.Until(t.Context(), 10*time.Second, "the policy to deny "+from,
					func() (bool, error) {
						return (Cell{Result: l.Connect(t.Context(), from, probe.TCP,
							at(pod.Addresses[0], 80), option)}).Denied(), nil
					}))
			}
			onNode := map[string]string{}
			pods, err := l.Pods()
			must(t, err)
			for _, pod := range pods {
				onNode[pod.Name] = pod.Node
			}
			wantMatrix(t, l.View, 7*6*factor, func(from, to string) bool {
				return !strings.HasPrefix(to, "dev/") || from == to || from == onNode[to]
			})
			why, err := l.Why(t.Context(), pod.Node, "prod/c", "dev/a", "80")
			if err != nil || !strings.Contains(why, "dev/deny") {
				t.Errorf("why: got %q (%v), want the policy", why, err)
			}

			must(t, l.Delete(t.Context(), denyIngressInDev))
			if r := l.Reach(t.Context(), Outside, probe.TCP, at(pod.Addresses[0], 80)); !r.OK {
				t.Errorf("after the policy was deleted: %s", r)
			}
		})
	}
}

func TestPodStatus(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("status"), Nodes: 1})
	must(t, l.Apply(t.Context(), `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  initContainers:
  - {name: once, image: none}
  - {name: sidecar, image: none, restartPolicy: Always, ports: [{containerPort: 8080}]}
  containers:
  - name: main
    image: none
    ports: [{containerPort: 80, name: http}]
    readinessProbe: {httpGet: {port: http, path: /healthz}, periodSeconds: 1, failureThreshold: 1}
`))
	must(t, l.WaitReady(within(t, 20*time.Second), "default/web"))
	pod := getPod(t, l, "default/web")
	running, err := l.Pod("default/web")
	must(t, err)
	var ips []string
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	got, want := strings.Join(ips, " "), running.Addr4().String()+" "+running.Addr6().String()
	if got != want {
		t.Errorf("pod IPs are %q, want %q", got, want)
	}
	if pod.Status.Phase != corev1.PodRunning || len(pod.Status.ContainerStatuses) != 1 ||
		len(pod.Status.InitContainerStatuses) != 2 {
		t.Errorf("status is %+v", pod.Status)
	}
	for _, port := range []uint16{80, 8080} {
		r := l.Connect(t.Context(), "node1", probe.TCP, at(running.Addr6(), port))
		if !r.OK || !strings.HasPrefix(r.Reply, "default/web ") {
			t.Errorf("port %d: %s", port, r)
		}
	}

	// A probe that can't get through makes the pod unready, and it recovers.
	_, err = l.Nft(t.Context(), "node1",
		"add table inet test; add chain inet test out { type filter hook output priority 0; }; "+
			"add rule inet test out tcp dport 80 reject")
	must(t, err)
	must(t, wait.Until(t.Context(), 20*time.Second, "the pod to be unready", func() (bool, error) {
		return !isReady(getPod(t, l, "default/web")), nil
	}))
	_, err = l.Nft(t.Context(), "node1", "delete table inet test")
	must(t, err)
	must(t, l.WaitReady(within(t, 20*time.Second), "default/web"))
}

func TestHostNetworkPodIsItsNode(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("hostnet"), Nodes: 1})
	must(t,
		l.Apply(t.Context(), strings.Replace(podManifest("default", "host", "node1", nil, "7000"),
			"spec:\n", "spec:\n  hostNetwork: true\n", 1)))
	must(t, l.WaitReady(within(t, 20*time.Second), "default/host"))
	r := l.Connect(t.Context(), Outside, probe.TCP, at(l.NodeAddrs("node1")[0], 7000))
	if !r.OK || !strings.HasPrefix(r.Reply, "default/host ") {
		t.Errorf("the node's port: %s", r)
	}
}

func TestFirstConnect(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("first"), Nodes: 1})
	first := map[string]string{kubelet.FirstConnectAnnotation: "tcp://192.168.0.250:80"}
	must(t, l.Apply(t.Context(), twoNamespaces+`---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: prod}
spec: {podSelector: {}, policyTypes: [Egress]}
`+podManifest("dev", "open", "", first)+podManifest("prod", "isolated", "", first)))
	for name, want := range map[string]bool{"dev/open": true, "prod/isolated": false} {
		var outcome kubelet.FirstConnect
		must(t,
			wait.Until(t.Context(), 20*time.Second, "the result of "+name, func() (bool, error) {
				text := getPod(t, l, name).Annotations[kubelet.FirstConnectResultAnnotation]
				return text != "" && json.Unmarshal([]byte(text), &outcome) == nil, nil
			}))
		if outcome.OK != want || outcome.Attempts < 1 || !want && outcome.Attempts < 5 {
			t.Errorf("%s: got %+v, want ok %v", name, outcome, want)
		}
	}
}

func TestPodsEnd(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("ends"), Nodes: 1})
	must(t, l.Apply(t.Context(), twoNamespaces+
		podManifest("dev", "job", "", map[string]string{kubelet.RunForAnnotation: "100ms"}, "80")+
		podManifest("dev", "forced", "", nil, "80")+
		podManifest("dev", "same", "", map[string]string{kubelet.LingerAnnotation: "1s"}, "80")))

	must(t, wait.Until(t.Context(), 20*time.Second, "the job to succeed", func() (bool, error) {
		return getPod(t, l, "dev/job").Status.Phase == corev1.PodSucceeded, nil
	}))
	must(t,
		wait.Until(t.Context(), 10*time.Second, "the job's network to go", func() (bool, error) {
			_, err := l.Pod("dev/job")
			return err != nil, nil
		}))
	must(t, l.WaitReady(within(t, 20*time.Second), "dev/same", "dev/forced"))

	forced := getPod(t, l, "dev/forced")
	must(t, l.Client().Delete(t.Context(), forced, client.GracePeriodSeconds(0)))
	must(t, wait.Until(t.Context(), 10*time.Second,
		"the network of the pod without an object to go", func() (bool, error) {
			_, err := os.Stat(namespace.Path(namespace.Name(l.Name(), string(forced.UID))))
			return os.IsNotExist(err), nil
		}))

	same, err := l.Pod("dev/same")
	must(t, err)
	must(t, l.Client().Delete(t.Context(), getPod(t, l, "dev/same")))
	if r := l.Connect(t.Context(), "node1", probe.TCP, at(same.Addr4(), 80)); !r.OK {
		t.Errorf("a pod that lingers: %s", r)
	}
	must(t, l.WaitGone(within(t, 20*time.Second), "dev/same"))
	must(t, l.Apply(t.Context(), podManifest("dev", "same", "", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second), "dev/same"))
	if again, err := l.Pod("dev/same"); err != nil || again.UID == same.UID {
		t.Errorf("the pod of the same name: %+v (%v)", again, err)
	}

	must(t, l.Delete(t.Context(), twoNamespaces))
	must(t, wait.Until(t.Context(), 20*time.Second, "the namespaces to go", func() (bool, error) {
		var namespace corev1.Namespace
		for _, name := range []string{"dev", "prod"} {
			if err := l.Client().Get(t.Context(), client.ObjectKey{Name: name},
				&namespace); !apierrors.IsNotFound(err) {
				return false, nil
			}
		}
		return true, nil
	}))
	if pods, err := l.Pods(); err != nil || len(pods) > 0 {
		t.Errorf("pods that run: %v (%v)", pods, err)
	}
}

func TestScheduling(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("sched"), NoAgent: true})
	selects := func(name, node string) string {
		return podManifest("default", name, "", nil) + "  nodeSelector: {kubernetes.io/hostname: " +
			node + "}\n"
	}
	must(t,
		l.Apply(t.Context(), selects("one", "node2")+selects("two", "node2")+
			selects("nowhere", "node9")+
			podManifest("default", "three", "", nil)+podManifest("default", "four", "", nil)))
	must(t, l.WaitReady(within(t, 20*time.Second), "default/one", "default/two", "default/three",
		"default/four"))
	node := func(name string) string { return getPod(t, l, "default/"+name).Spec.NodeName }
	if node("one") != "node2" || node("two") != "node2" || node("nowhere") != "" ||
		node("three") == node("four") {
		t.Errorf("nodes are %q, %q, %q, and %q, %q", node("one"), node("two"), node("nowhere"),
			node("three"), node("four"))
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	l := newTestLab(t, Options{Name: testName("faults")})
	must(t,
		l.Apply(t.Context(), twoNamespaces+podManifest("dev", "a", "node1", nil, "80")+
			podManifest("prod", "b", "node2", nil, "80")))
	must(t, l.WaitReady(within(t, 20*time.Second)))
	target, err := l.Pod("dev/a")
	must(t, err)
	reach := func(why string) {
		t.Helper()
		if r := l.Reach(t.Context(), "prod/b", probe.TCP, at(target.Addr6(), 80)); !r.OK {
			t.Errorf("%s: %s", why, r)
		}
	}
	canList := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return l.Client().List(ctx, &corev1.PodList{}) == nil
	}

	l.StopAPIServer()
	if canList() {
		t.Error("the API server answers although it was stopped")
	}
	reach("without the API server")
	must(t, l.StartAPIServer(within(t, time.Minute)))
	if !canList() {
		t.Error("the API server doesn't answer after it was started")
	}
	must(t, l.Apply(t.Context(), podManifest("dev", "later", "node2", nil, "80")))
	must(t, l.WaitReady(within(t, 60*time.Second), "dev/later", "dev/a"))

	node := l.Node("node1")
	dial := func() error {
		conn, err := namespace.Dialer(node.space())(within(t, 5*time.Second), "tcp", proxy.Address)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	must(t, dial())
	node.CutAPI()
	node.CutAPI()
	if dial() == nil {
		t.Error("the API server can be reached from a node that is cut off")
	}
	must(t, node.RestoreAPI())
	must(t, dial())

	node.KillAgent()
	node.KillAgent()
	if err := node.WaitAgentReady(t.Context()); err == nil {
		t.Error("a killed agent is ready")
	}
	if text, err := Describe(t.Context(), l.Name()); err != nil ||
		!strings.HasSuffix(text, "; not ready: nor is the agent of node1") {
		t.Errorf("without an agent the lab is %q (%v)", text, err)
	}
	reach("without the agent")
	must(t, l.Apply(t.Context(), podManifest("dev", "waiting", "node1", nil, "80")))
	must(t, wait.Until(t.Context(), 20*time.Second, "the pod to say why it doesn't start",
		func() (bool, error) {
			status := getPod(t, l, "dev/waiting").Status
			if len(status.ContainerStatuses) == 0 ||
				status.ContainerStatuses[0].State.Waiting == nil {
				return false, nil
			}
			return status.Phase == corev1.PodPending &&
				strings.Contains(status.ContainerStatuses[0].State.Waiting.Message, "CNI ADD"), nil
		}))
	must(t, node.StartAgent())
	must(t, node.WaitAgentReady(within(t, time.Minute)))
	if text, err := Describe(t.Context(), l.Name()); err != nil ||
		!strings.HasSuffix(text, "; ready") {
		t.Errorf("with a new agent the lab is %q (%v)", text, err)
	}
	reach("with a new agent")
	must(t, l.WaitReady(within(t, 30*time.Second), "dev/waiting"))
}

func getPod(t *testing.T, l *Lab, name string) *corev1.Pod {
	t.Helper()
	namespace, short, _ := strings.Cut(name, "/")
	pod := &corev1.Pod{}
	must(t, l.Client().Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: short}, pod))
	return pod
}
