package foreign

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/stretch"
)

// proxyModes are the modes of kube-proxy, each with a module of the kernel and a program that it
// needs, beside nft.
var proxyModes = []struct{ name, module, program string }{
	{"nftables", "", "nft"}, {"iptables", "xt_comment", "iptables"}, {"ipvs", "ip_vs", "ipset"},
}

// TestKubeProxy: the real kube-proxy serves Services beside us, on a node with the client and on
// one with the pod behind the Service. Policies judge the pod, and neither keeps the other from
// writing: each Service is served, and kube-proxy complains of nothing. One mode follows the other
// on the same nodes.
func TestKubeProxy(t *testing.T) {
	w := newLab(t, "proxy", lab.Options{Nodes: 2})
	near, far := w.Nodes()[0], w.Nodes()[1]
	w.namespaces("shop")
	client := map[string]string{"app": "client"}
	w.create(pod("shop/web", near.Name(), map[string]string{"app": "web"}, nil),
		pod("shop/decoy", near.Name(), nil, nil),
		pod("shop/client-near", near.Name(), client, nil),
		pod("shop/other-near", near.Name(), nil, nil),
		pod("shop/client-far", far.Name(), client, nil),
		pod("shop/other-far", far.Name(), nil, nil))
	w.serve("web", service, "shop/web")
	w.serve("decoy", decoy, "shop/decoy")
	for _, mode := range proxyModes {
		t.Run(mode.name, func(t *testing.T) {
			if mode.module != "" &&
				exec.CommandContext(t.Context(), "modprobe", mode.module).Run() != nil {
				t.Skipf("needs the kernel's module %s", mode.module)
			}
			if _, err := exec.LookPath(mode.program); err != nil {
				t.Skipf("needs %s: %v", mode.program, err)
			}
			w := &world{Lab: w.Lab, t: t, served: maps.Clone(w.served)}
			for _, node := range w.Nodes() {
				w.runKubeProxy(node, mode.name)
			}
			for _, node := range w.Nodes() {
				w.eventually("kube-proxy of "+node.Name()+" to write its rules",
					func() bool { return synced.Match(readProxyLog(t, node)) })
			}
			w.testServices(mode.name)
			for _, node := range w.Nodes() {
				w.noFailedSyncs(node)
			}
		})
	}
}

// testServices: from the node of the pod behind the Service and from the other.
func (w *world) testServices(mode string) {
	var clients, others, decoys []flow
	for _, place := range []string{"near", "far"} {
		clients = append(clients, tcp("shop/client-"+place, service, 80))
		others = append(others, tcp("shop/other-"+place, service, 80))
		decoys = append(decoys, tcp("shop/client-"+place, decoy, 80))
	}
	w.allowed(clients...)
	w.allowed(others...)
	w.allowed(decoys...)

	w.apply(toWeb)
	w.denied(others...)
	w.allowed(clients...)
	w.apply(fromClient)
	w.denied(decoys...)
	w.allowed(clients...)

	// Both write, by turns and at once.
	more := stretch.Fewer(10)
	numbered := func(i int) string { return fmt.Sprintf("%s-%d", mode, i) }
	again := func(i int) string {
		return strings.ReplaceAll(toWeb, "to-web", "to-web-"+numbered(i))
	}
	for i := range more {
		w.serve(numbered(i), numbered(i), "shop/web")
		w.apply(again(i))
	}
	for i := range more {
		w.allowed(tcp("shop/client-far", numbered(i), 80))
	}
	w.denied(others...)
	for i := range more {
		must(w.t, w.Delete(w.t.Context(), again(i)))
	}
	must(w.t, w.Delete(w.t.Context(), fromClient))
	must(w.t, w.Delete(w.t.Context(), toWeb))
	w.allowed(others...)
}

// decoy is the place of a Service, as service is.
const decoy = "service decoy"

// serve makes a Service, with the pod behind it.
func (w *world) serve(name, place, behind string) {
	w.t.Helper()
	single, both := corev1.ServiceInternalTrafficPolicyCluster,
		corev1.IPFamilyPolicyRequireDualStack
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{InternalTrafficPolicy: &single, IPFamilyPolicy: &both,
			Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	must(w.t, w.Client().Create(w.t.Context(), svc))
	w.served[place] = nil
	for _, ip := range svc.Spec.ClusterIPs {
		addr, err := netip.ParseAddr(ip)
		must(w.t, err)
		w.served[place] = append(w.served[place], addr)
	}
	ready, port, portName := true, int32(80), "http"
	for _, is4 := range []bool{true, false} {
		family := discoveryv1.AddressTypeIPv6
		if is4 {
			family = discoveryv1.AddressTypeIPv4
		}
		must(w.t, w.Client().Create(w.t.Context(), &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop",
				Name:   fmt.Sprintf("%s-%s", name, strings.ToLower(string(family))),
				Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: family,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{w.addr(behind, is4).String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
			Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
		}))
	}
}

// runKubeProxy runs kube-proxy on a node until the test ends, and removes what it leaves there.
func (w *world) runKubeProxy(node *lab.Node, mode string) {
	w.t.Helper()
	log, err := os.Create(proxyLog(node))
	must(w.t, err)
	//nolint:gosec // built from its module
	proxy := exec.CommandContext(w.t.Context(), kubeProxy, "--proxy-mode="+mode,
		"--hostname-override="+node.Name(), "--kubeconfig="+w.kubeconfigOn(node, "kube-proxy"),
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s", "--bind-address=127.0.0.1", "--v=4")
	proxy.Stdout, proxy.Stderr = log, log
	must(w.t, w.Do(node.Name(), proxy.Start))
	w.t.Cleanup(func() {
		_ = proxy.Process.Kill() // it may have ended
		_ = proxy.Wait()
		must(w.t, log.Close())
		var said []byte
		if err := w.Do(node.Name(), func() (err error) {
			//nolint:gosec // likewise
			said, err = exec.Command(kubeProxy, "--cleanup").CombinedOutput()
			return err
		}); err != nil {
			// In mode ipvs, with nft's iptables, kube-proxy 1.36 removes chains in a wrong order.
			wrongOrder := mode == "ipvs" && strings.Contains(string(said), "CHAIN_DEL failed")
			w.t.Logf("%s: kube-proxy --cleanup: %v: %s", node.Name(), err, said)
			if !wrongOrder {
				w.t.Fail()
			}
		}
		if text, err := os.ReadFile(log.Name()); w.t.Failed() && err == nil {
			w.t.Logf("kube-proxy of %s:\n%s", node.Name(), text[max(0, len(text)-8000):])
		}
	})
}

// Lines of kube-proxy's log: one that says that it has written what it wanted, and those by which
// it says that it couldn't.
var (
	synced     = regexp.MustCompile(`"[Ss]yncProxyRules complete"`)
	complaints = regexp.MustCompile(
		`.*"(?:nftables sync failed|Sync failed|Failed to (?:sync|execute|ensure|` +
			`list nftables elements|create|bind|add|update|delete) ?.*)"`)
)

// noFailedSyncs reads kube-proxy's log.
func (w *world) noFailedSyncs(node *lab.Node) {
	w.t.Helper()
	for _, line := range complaints.FindAll(readProxyLog(w.t, node), -1) {
		w.t.Errorf("%s: kube-proxy says: %s", node.Name(), line)
	}
}

func readProxyLog(t *testing.T, node *lab.Node) []byte {
	t.Helper()
	text, err := os.ReadFile(proxyLog(node))
	must(t, err)
	return text
}

func proxyLog(node *lab.Node) string { return filepath.Join(node.Dir(), "kube-proxy.log") }
