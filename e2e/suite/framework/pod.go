package framework

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Container is the name of the container in every test pod, and Program the test program's path in
// it.
const (
	Container = "testpod"
	Program   = "/testpod"
)

// PodOptions describe a pod. Every field may be empty.
type PodOptions struct {
	Name string // "pod-" and random characters if empty
	// where it must run, also where taints or a cordon keep other pods away; any worker if empty
	Node   string
	Labels map[string]string
	// the test program's; a server of nothing if empty, which is what a client wants
	Args        []string
	HostNetwork bool
	Ports       []corev1.ContainerPort
	Mutate      func(*corev1.Pod) // the last word on the object
}

// Pod is a pod that runs the test program.
type Pod struct {
	Namespace, Name string

	cluster *TheCluster

	mu        sync.Mutex
	addresses []netip.Addr
}

// String names the pod in failure messages.
func (p *Pod) String() string { return p.Namespace + "/" + p.Name }

// CreatePod creates a pod and doesn't wait for it. Its namespace's deletion removes it.
func (c *TheCluster) CreatePod(ctx context.Context, namespace string, o PodOptions) *Pod {
	if o.Name == "" {
		o.Name = "pod-" + rand.String(6)
	}
	if len(o.Args) == 0 {
		o.Args = []string{"serve", "--name", o.Name, "--linger", "0s"}
	}
	object := c.podObject(namespace, o)
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		_, err := c.Client.CoreV1().Pods(namespace).Create(ctx, object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsTooManyRequests(err) && !apierrors.IsInternalError(err) &&
			!apierrors.IsServerTimeout(err) {
			return gomega.StopTrying("it can't be created").Wrap(err)
		}
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "creating pod %s/%s", namespace, o.Name)
	return &Pod{Namespace: namespace, Name: o.Name, cluster: c}
}

// Server creates a pod that answers on the ports ("tcp/80", "udp/53", "sctp/9000") with its name
// and the client's address, and waits until it is Ready: until kubelet has connected to the first
// TCP port, if there is one. The options' Args are added to "serve".
func (c *TheCluster) Server(ctx context.Context, namespace string, o PodOptions,
	ports ...string) *Pod {
	if o.Name == "" {
		o.Name = "server-" + rand.String(6)
	}
	args := []string{"serve", "--name", o.Name}
	probed := ""
	for _, port := range ports {
		args = append(args, "--serve", port)
		if number, ok := strings.CutPrefix(port, "tcp/"); ok && probed == "" {
			probed = number
		}
	}
	o.Args = append(args, o.Args...)
	mutate := o.Mutate
	o.Mutate = func(object *corev1.Pod) {
		if probed != "" {
			object.Spec.Containers[0].ReadinessProbe = tcpProbe(probed)
		}
		if mutate != nil {
			mutate(object)
		}
	}
	pod := c.CreatePod(ctx, namespace, o)
	c.WaitReady(ctx, pod)
	return pod
}

// WaitReady waits until all pods are Ready, or fails the spec as soon as one has ended.
func (c *TheCluster) WaitReady(ctx context.Context, pods ...*Pod) {
	waiting := append([]*Pod(nil), pods...)
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		objects, err := c.objectsOf(ctx, waiting)
		if err != nil {
			return err
		}
		var unready []*Pod
		var why []string
		for _, pod := range waiting {
			switch object := objects[pod.String()]; {
			case object == nil:
				return gomega.StopTrying("pod " + pod.String() + " is gone")
			case object.Status.Phase == corev1.PodFailed ||
				object.Status.Phase == corev1.PodSucceeded:
				return gomega.StopTrying(fmt.Sprintf("pod %s ended: %s", pod, describe(object)))
			case ready(object):
				pod.remember(object)
			default:
				unready = append(unready, pod)
				why = append(why, describe(object))
			}
		}
		if waiting = unready; len(waiting) > 0 {
			return fmt.Errorf("%d pods of %d aren't Ready: %s", len(waiting), len(pods),
				strings.Join(why, "; "))
		}
		return nil
	}).WithContext(ctx).WithTimeout(PodPatience).Should(gomega.Succeed())
}

// objectsOf lists the namespaces of pods, and keys what is there by namespace/name.
func (c *TheCluster) objectsOf(ctx context.Context, pods []*Pod) (map[string]*corev1.Pod, error) {
	objects := map[string]*corev1.Pod{}
	listed := map[string]bool{}
	for _, pod := range pods {
		if listed[pod.Namespace] {
			continue
		}
		listed[pod.Namespace] = true
		list, err := c.Client.CoreV1().Pods(pod.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("listing pods of %s: %w", pod.Namespace, err)
		}
		for i := range list.Items {
			objects[pod.Namespace+"/"+list.Items[i].Name] = &list.Items[i]
		}
	}
	return objects, nil
}

// Addresses are the pod's addresses, the primary one first. The pod must have been waited for.
func (p *Pod) Addresses() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	gomega.ExpectWithOffset(1, p.addresses).
		NotTo(gomega.BeEmpty(), "addresses of pod %s, which nobody has seen Ready", p)
	return p.addresses
}

// Address is the pod's address of one family. It fails the spec if the pod has none.
func (p *Pod) Address(family corev1.IPFamily) netip.Addr {
	addr := OfFamily(p.Addresses(), family)
	gomega.ExpectWithOffset(1, addr.IsValid()).
		To(gomega.BeTrue(), "pod %s has no %s address among %v", p, family, p.Addresses())
	return addr
}

// Targets are the pod's port at each of its addresses.
func (p *Pod) Targets(protocol string, port int) []string {
	var targets []string
	for _, addr := range p.Addresses() {
		targets = append(targets, Target(protocol, addr, port))
	}
	return targets
}

// Object reads the pod from the API server.
func (p *Pod) Object(ctx context.Context) *corev1.Pod {
	var object *corev1.Pod
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) (err error) {
		object, err = p.cluster.Client.CoreV1().Pods(p.Namespace).
			Get(ctx, p.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return gomega.StopTrying("it is gone").Wrap(err)
		}
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "getting pod %s", p)
	p.remember(object)
	return object
}

// Delete deletes the pod and waits until it is gone. Deleting a pod that is gone is no failure.
func (p *Pod) Delete(ctx context.Context) {
	pods := p.cluster.Client.CoreV1().Pods(p.Namespace)
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		if err := pods.Delete(ctx, p.Name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is still there, its deletion said: %w", err)
		}
		return nil
	}).WithContext(ctx).WithTimeout(PodPatience).Should(gomega.Succeed(), "deleting pod %s", p)
}

func (p *Pod) remember(object *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addresses = p.addresses[:0:0]
	for _, ip := range object.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			p.addresses = append(p.addresses, addr)
		}
	}
}
