package enforce

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// newLab starts a lab that ends with the test.
func newLab(t testing.TB, name string, options lab.Options) *lab.Lab {
	t.Helper()
	options.Name = name
	options.Progress = t.Output()
	l, err := lab.Up(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, l)
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// dump logs what helps to find why a test failed.
func dump(t testing.TB, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stretch.By(10*time.Second))
	defer cancel()
	for _, node := range l.Nodes() {
		log, err := os.ReadFile(filepath.Join(node.Dir(), "agent.log"))
		t.Logf("%s: the agent's log (%v):\n%s", node.Name(), err, log)
		listing, err := node.Nft(ctx, "list", "table", "inet", "sluice")
		if err != nil {
			listing = err.Error()
		}
		t.Logf("%s:\n%s", node.Name(), listing)
	}
}

// world is the world of the meaning cases in a lab.
type world struct {
	*lab.Lab
	t testing.TB
	// node is the node that a pod runs on.
	node map[string]string
}

// newWorld makes the namespaces, pods and servers. The placement names the node of each pod.
func newWorld(t *testing.T, l *lab.Lab, placement map[string]string) *world {
	t.Helper()
	w := &world{Lab: l, t: t, node: placement}
	for _, ns := range cases.Namespaces() {
		w.must(l.Client().Create(t.Context(), ns))
	}
	var names []string
	for _, in := range cases.Pods() {
		pod := labPod(in, placement[in.Namespace+"/"+in.Name])
		w.must(l.Client().Create(t.Context(), pod))
		names = append(names, pod.Namespace+"/"+pod.Name)
	}
	for _, place := range append(l.NodeNames(), lab.Outside) {
		w.serve(place)
	}
	w.must(l.WaitReady(t.Context(), names...))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// labPod is a pod of the world as a user would create it, with every port declared that the world's
// pods serve.
func labPod(in *corev1.Pod, node string) *corev1.Pod {
	ports := slices.Clone(in.Spec.Containers[0].Ports)
	declare := func(protocol corev1.Protocol, numbers []uint16) {
		for _, number := range numbers {
			same := func(p corev1.ContainerPort) bool {
				return p.ContainerPort == int32(number) &&
					(p.Protocol == protocol || p.Protocol == "" && protocol == corev1.ProtocolTCP)
			}
			if !slices.ContainsFunc(ports, same) {
				ports = append(ports,
					corev1.ContainerPort{ContainerPort: int32(number), Protocol: protocol})
			}
		}
	}
	declare(corev1.ProtocolTCP, cases.TCPPorts)
	declare(corev1.ProtocolUDP, cases.UDPPorts)
	declare(corev1.ProtocolSCTP, cases.SCTPPorts)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: in.Namespace, Name: in.Name, Labels: in.Labels},
		Spec: corev1.PodSpec{NodeName: node,
			Containers: []corev1.Container{{Name: "main", Image: "main", Ports: ports}}},
	}
}

// serve opens the world's ports on a node or outside. Outside has its TCP 80.
func (w *world) serve(place string) {
	w.t.Helper()
	open := func(protocol probe.Protocol, ports []uint16) {
		for _, port := range ports {
			if place == lab.Outside && protocol == probe.TCP && port == 80 {
				continue
			}
			server, err := w.Serve(place, protocol, port)
			w.must(err)
			w.t.Cleanup(server.Close)
		}
	}
	open(probe.TCP, cases.TCPPorts)
	open(probe.UDP, cases.UDPPorts)
	var sctp *probe.SCTPServer
	w.must(w.Do(place, func() (err error) {
		sctp, err = probe.ListenSCTP(place)
		return err
	}))
	w.t.Cleanup(sctp.Close)
	for _, port := range cases.SCTPPorts {
		w.must(w.Do(place, func() error { return sctp.Open(port) }))
	}
}

// place returns where an end of a flow is, given the other end: "node" is the node of the pod at
// the other end.
func (w *world) place(end, other string) string {
	switch end {
	case cases.NodeName:
		return w.node[other]
	case "out", "out2":
		return lab.Outside
	}
	return end
}

// addr returns the address of an end of a flow.
func (w *world) addr(end, other string, family int) netip.Addr {
	w.t.Helper()
	if end == "out" || end == "out2" {
		return w.outside(end, family)
	}
	var addrs []netip.Addr
	if end == cases.NodeName {
		addrs = w.NodeAddrs(w.place(end, other))
	} else {
		pod, err := w.Pod(end)
		w.must(err)
		addrs = pod.Addresses
	}
	for _, a := range addrs {
		if a.Is4() == (family == 4) {
			return a
		}
	}
	w.t.Fatalf("%s has no IPv%d address", end, family)
	return netip.Addr{}
}

// outside returns the first address of the outside host as "out", the second as "out2".
func (w *world) outside(end string, family int) netip.Addr {
	addrs := slices.DeleteFunc(w.OutsideAddrs(), func(a netip.Addr) bool {
		return a.Is4() != (family == 4)
	})
	if end == "out2" {
		return addrs[1]
	}
	return addrs[0]
}

func (w *world) connect(f cases.Flow, family int) probe.Result {
	var opts []probe.Option
	if f.From == "out" || f.From == "out2" {
		opts = append(opts, probe.FromAddr(w.outside(f.From, family)))
	}
	dst := netip.AddrPortFrom(w.addr(f.To, f.From, family), f.Port)
	return w.Connect(w.t.Context(), w.place(f.From, f.To), probe.Protocol(f.Protocol), dst, opts...)
}

// settleTime is how long a change of policy may take until it is in force on a busy machine; that
// it takes less is shown elsewhere.
var settleTime = stretch.By(time.Minute)

// expect waits until every flow has its verdict, and then holds each to it once more.
func (w *world) expect(flows []cases.Flow, connects bool) {
	w.t.Helper()
	w.each(flows, func(f cases.Flow, family int) {
		var r probe.Result
		for deadline := time.Now().Add(settleTime); time.Now().Before(deadline); {
			if r = w.connect(f, family); verdict(r, connects) {
				break
			}
		}
		if !verdict(r, connects) {
			w.t.Errorf("%s (IPv%d): expected connect %v, got %s", f, family, connects, r)
		}
	})
	if connects || w.t.Failed() {
		return
	}
	w.each(flows, func(f cases.Flow, family int) {
		if r := w.connect(f, family); !verdict(r, connects) {
			w.t.Errorf("%s (IPv%d): was denied, then got %s", f, family, r)
		}
	})
}

func verdict(r probe.Result, connects bool) bool {
	if connects {
		return r.OK
	}
	return !r.OK && lab.Cell{Result: r}.Denied()
}

func (w *world) each(flows []cases.Flow, try func(f cases.Flow, family int)) {
	var all sync.WaitGroup
	for _, f := range flows {
		for _, family := range f.Families {
			all.Go(func() { try(f, family) })
		}
	}
	all.Wait()
}

func (w *world) allowed(flows ...string) {
	w.t.Helper()
	w.expect(cases.MustFlows(flows), true)
}

func (w *world) denied(flows ...string) {
	w.t.Helper()
	w.expect(cases.MustFlows(flows), false)
}

// setPolicies applies policies, given as spec by namespace/name. The "node" of a spec is that of
// the pods it selects.
func (w *world) setPolicies(specs map[string]string) {
	w.t.Helper()
	for key, spec := range specs {
		np, err := cases.RenderPolicy(key, spec, func(name string, family int) string {
			var other string
			if name == cases.NodeName {
				other = w.podSelectedBy(key, spec)
			}
			return w.addr(name, other, family).String()
		})
		w.must(err)
		w.setPolicy(np)
	}
}

func (w *world) setPolicy(np *networkingv1.NetworkPolicy) {
	w.t.Helper()
	var old networkingv1.NetworkPolicy
	err := w.Client().Get(w.t.Context(), client.ObjectKeyFromObject(np), &old)
	if err == nil {
		np.ResourceVersion = old.ResourceVersion
		w.must(w.Client().Update(w.t.Context(), np))
		return
	}
	w.must(client.IgnoreNotFound(err))
	w.must(w.Client().Create(w.t.Context(), np))
}

func (w *world) deletePolicies(keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		namespace, name, _ := strings.Cut(key, "/")
		np := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		w.must(client.IgnoreNotFound(w.Client().Delete(w.t.Context(), np)))
	}
}

// label sets labels of a pod or, given no slash, a namespace. A nil value takes the label away.
func (w *world) label(name string, labels map[string]any) {
	w.t.Helper()
	var object client.Object = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if namespace, pod, ok := strings.Cut(name, "/"); ok {
		object = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}}
	}
	patch, err := mergePatch(labels)
	w.must(err)
	w.must(w.Client().Patch(w.t.Context(), object, client.RawPatch(types.MergePatchType, patch)))
}

// apart places the world's pods on two nodes, two on each.
var apart = map[string]string{"dev/web": "node1", "ops/probe": "node1", "dev/db": "node2",
	"prod/web": "node2"}

func labName(t testing.TB, short string) string {
	t.Helper()
	return fmt.Sprintf("%s-%d", short, time.Now().UnixNano()%1_000_000)
}
