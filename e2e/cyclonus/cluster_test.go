package cyclonus

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/kube"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/stretch"
)

// patience is how long pods and namespaces may take to come and go.
var patience = stretch.By(time.Minute)

// labCluster is a lab as cyclonus' interpreter asks for it. Its methods may be called concurrently.
// What takes time in a cluster is done when they return: a pod that was created is ready, one that
// was deleted is gone.
type labCluster struct {
	lab *lab.Lab
	ctx context.Context
	// families are those that a cell is tried over; pods are said to have the address of the first.
	families []family

	mu      sync.Mutex
	created int               // pods
	changed time.Time         // when an object was last written
	rounds  map[string]int    // of probes since then, by the pod that they begin at
	seen    map[string]string // what came of a cell the last time, by cyclonus' key of it
	right   map[string]bool   // whether a cell was as expected since the last write, likewise
	slots   chan struct{}     // for connections that should succeed
}

var _ kube.IKubernetes = (*labCluster)(nil)

// family is a family of addresses.
type family string

const (
	ipv4 family = "IPv4"
	ipv6 family = "IPv6"
)

func (f family) has(a netip.Addr) bool { return a.Is4() == (f == ipv4) }

func newLabCluster(ctx context.Context, l *lab.Lab, families ...family) *labCluster {
	return &labCluster{lab: l, ctx: ctx, families: families, rounds: map[string]int{},
		seen: map[string]string{}, right: map[string]bool{}, slots: make(chan struct{}, atOnce)}
}

// wrote notes that an object was written, unless err says that it wasn't.
func (c *labCluster) wrote(err error) error {
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed = time.Now()
		clear(c.rounds)
		clear(c.right)
	}
	return err
}

func get[T client.Object](c *labCluster, namespace, name string, into T) (T, error) {
	err := c.lab.Client().Get(c.ctx, client.ObjectKey{Namespace: namespace, Name: name}, into)
	return into, err
}

func create[T client.Object](c *labCluster, object T) (T, error) {
	return object, c.wrote(c.lab.Client().Create(c.ctx, object))
}

func (c *labCluster) remove(object client.Object) error {
	return c.wrote(c.lab.Client().Delete(c.ctx, object))
}

// label replaces an object's labels, if they are others.
func label[T client.Object](c *labCluster, object T, labels map[string]string) (T, error) {
	if maps.Equal(object.GetLabels(), labels) {
		return object, nil
	}
	object.SetLabels(labels)
	return object, c.wrote(c.lab.Client().Update(c.ctx, object))
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func (c *labCluster) CreateNamespace(ns *corev1.Namespace) (*corev1.Namespace, error) {
	return create(c, ns)
}

func (c *labCluster) GetNamespace(name string) (*corev1.Namespace, error) {
	return get(c, "", name, &corev1.Namespace{})
}

func (c *labCluster) SetNamespaceLabels(name string,
	labels map[string]string) (*corev1.Namespace, error) {
	ns, err := c.GetNamespace(name)
	if err != nil {
		return nil, err
	}
	labels = maps.Clone(labels)
	labels[corev1.LabelMetadataName] = name // which the server adds anyway
	return label(c, ns, labels)
}

func (c *labCluster) DeleteNamespace(name string) error {
	if err := c.remove(&corev1.Namespace{ObjectMeta: meta("", name)}); err != nil {
		return err
	}
	defer func() { _ = c.wrote(nil) }() // its pods went after it
	return c.await("namespace "+name+" to be gone", func() bool {
		_, err := c.GetNamespace(name)
		return apierrors.IsNotFound(err)
	})
}

// await asks until the answer is yes.
func (c *labCluster) await(what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

func (c *labCluster) GetAllNamespaces() (*corev1.NamespaceList, error) {
	var list corev1.NamespaceList
	return &list, c.lab.Client().List(c.ctx, &list)
}

func (c *labCluster) CreateNetworkPolicy(
	np *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	return create(c, np.DeepCopy())
}

func (c *labCluster) GetNetworkPoliciesInNamespace(
	namespace string) ([]networkingv1.NetworkPolicy, error) {
	var list networkingv1.NetworkPolicyList
	err := c.lab.Client().List(c.ctx, &list, client.InNamespace(namespace))
	return list.Items, err
}

func (c *labCluster) UpdateNetworkPolicy(
	np *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	old, err := get(c, np.Namespace, np.Name, &networkingv1.NetworkPolicy{})
	if err != nil {
		return nil, err
	}
	np = np.DeepCopy()
	np.ResourceVersion = old.ResourceVersion
	return np, c.wrote(c.lab.Client().Update(c.ctx, np))
}

func (c *labCluster) DeleteNetworkPolicy(namespace, name string) error {
	return c.remove(&networkingv1.NetworkPolicy{ObjectMeta: meta(namespace, name)})
}

func (c *labCluster) DeleteAllNetworkPoliciesInNamespace(namespace string) error {
	return c.wrote(c.lab.Client().
		DeleteAllOf(c.ctx, &networkingv1.NetworkPolicy{}, client.InNamespace(namespace)))
}

func (c *labCluster) CreateService(s *corev1.Service) (*corev1.Service, error) {
	return create(c, s)
}

func (c *labCluster) GetService(namespace, name string) (*corev1.Service, error) {
	return get(c, namespace, name, &corev1.Service{})
}

func (c *labCluster) DeleteService(namespace, name string) error {
	return c.remove(&corev1.Service{ObjectMeta: meta(namespace, name)})
}

func (c *labCluster) GetServicesInNamespace(namespace string) ([]corev1.Service, error) {
	var list corev1.ServiceList
	err := c.lab.Client().List(c.ctx, &list, client.InNamespace(namespace))
	return list.Items, err
}

// CreatePod places pods on the nodes in turn.
func (c *labCluster) CreatePod(pod *corev1.Pod) (*corev1.Pod, error) {
	nodes := c.lab.NodeNames()
	c.mu.Lock()
	pod.Spec.NodeName = nodes[c.created%len(nodes)]
	c.created++
	c.mu.Unlock()
	if err := c.lab.Client().Create(c.ctx, pod); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	if err := c.wrote(c.lab.WaitReady(ctx, pod.Namespace+"/"+pod.Name)); err != nil {
		return nil, err
	}
	return c.GetPod(pod.Namespace, pod.Name)
}

func (c *labCluster) GetPod(namespace, name string) (*corev1.Pod, error) {
	pod, err := get(c, namespace, name, &corev1.Pod{})
	if err != nil {
		return nil, err
	}
	c.chooseIP(pod)
	return pod, nil
}

// chooseIP has the pod say the address of the first family as its own.
func (c *labCluster) chooseIP(pod *corev1.Pod) {
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil && c.families[0].has(a) {
			pod.Status.PodIP = ip.IP
		}
	}
}

func (c *labCluster) DeletePod(namespace, name string) error {
	if err := c.remove(&corev1.Pod{ObjectMeta: meta(namespace, name)}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	return c.wrote(c.lab.WaitGone(ctx, namespace+"/"+name))
}

func (c *labCluster) SetPodLabels(namespace, name string,
	labels map[string]string) (*corev1.Pod, error) {
	pod, err := get(c, namespace, name, &corev1.Pod{})
	if err != nil {
		return nil, err
	}
	return label(c, pod, labels)
}

func (c *labCluster) GetPodsInNamespace(namespace string) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := c.lab.Client().List(c.ctx, &list, client.InNamespace(namespace))
	for i := range list.Items {
		c.chooseIP(&list.Items[i])
	}
	return list.Items, err
}
