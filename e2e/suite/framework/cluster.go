package framework

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// AgentNamespace is where Sluice is installed, and AgentName the name of its DaemonSet,
// ServiceAccount and ClusterRole.
const (
	AgentNamespace = "sluice-system"
	AgentName      = "sluice-agent"
	// AgentSelector picks the agents' pods.
	AgentSelector = "app.kubernetes.io/name=sluice,app.kubernetes.io/component=agent"
)

// TheCluster is the cluster that KUBECONFIG names.
type TheCluster struct {
	Config   *rest.Config
	Client   kubernetes.Interface
	Objects  client.Client     // typed reads and writes of any object
	Families []corev1.IPFamily // of pods; the first is the primary one
	Kind     *Kind             // nil if it isn't a kind cluster of the local Docker

	image   string
	workers int // that Workers waits for

	mu         sync.Mutex
	namespaces []string // of running specs, for diagnostics
	dumps      int      // diagnostics of nodes written so far
}

var connected = sync.OnceValues(connect)

// Cluster connects on its first call, and fails the spec if it can't.
func Cluster() *TheCluster {
	cluster, err := connected()
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred(), "connecting to the cluster")
	return cluster
}

func connect() (*TheCluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, fmt.Errorf("reading KUBECONFIG=%s: %w", os.Getenv("KUBECONFIG"), err)
	}
	// the default of 5 a second would be what the specs wait for
	config.QPS, config.Burst = 200, 400
	config.UserAgent = "sluice-e2e"
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	objects, err := client.New(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("making a client of any object: %w", err)
	}
	c := &TheCluster{Config: config, Client: clientset, Objects: objects,
		image: os.Getenv("SLUICE_E2E_IMAGE")}
	if c.image == "" {
		c.image = "sluice-net/e2e:v0.1.0"
	}
	if c.workers, err = expectedWorkers(os.Getenv("SLUICE_E2E_WORKERS")); err != nil {
		return nil, fmt.Errorf("SLUICE_E2E_WORKERS: %w", err)
	}
	if name := os.Getenv("SLUICE_KIND_CLUSTER"); name != "" {
		c.Kind = &Kind{Name: name, image: c.image}
	}
	c.Families, err = podFamilies(context.Background(), clientset)
	return c, err
}

// podFamilies are those of the nodes' podCIDRs. Where another add-on gives pods their addresses,
// nodes may have none: then they are those of the API server's Service.
func podFamilies(ctx context.Context, clientset kubernetes.Interface) ([]corev1.IPFamily, error) {
	nodes, err := clientset.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	for _, node := range nodes.Items {
		var families []corev1.IPFamily
		for _, text := range node.Spec.PodCIDRs {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("reading node %s's podCIDRs: %w", node.Name, err)
			}
			families = append(families, FamilyOf(prefix.Addr()))
		}
		if len(families) > 0 {
			return families, nil
		}
	}
	service, err := clientset.CoreV1().Services(metav1.NamespaceDefault).
		Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("getting the API server's Service: %w", err)
	}
	return service.Spec.IPFamilies, nil
}

// FamilyOf says which family an address is of.
func FamilyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Unmap().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// OfFamily returns the first address of a family, or the zero Addr.
func OfFamily(addrs []netip.Addr, family corev1.IPFamily) netip.Addr {
	for _, addr := range addrs {
		if FamilyOf(addr) == family {
			return addr
		}
	}
	return netip.Addr{}
}

// Nodes lists all nodes by name.
func (c *TheCluster) Nodes(ctx context.Context) []corev1.Node {
	var nodes []corev1.Node
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(gomega.HaveOccurred(), "listing nodes")
		nodes = list.Items
	}).Should(gomega.Succeed())
	slices.SortFunc(nodes, func(a, b corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}

// expectedWorkers reads how many workers a cluster has at least: 1 if nothing is said.
func expectedWorkers(text string) (int, error) {
	if text == "" {
		return 1, nil
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 {
		return 0, fmt.Errorf("%q: expected a number of nodes, 1 or more", text)
	}
	return number, nil
}

// Workers lists the nodes that any pod may be scheduled to (Ready, schedulable and without taints
// that keep pods away) by name. A node that was cordoned or restarted isn't one again at once, so
// it waits for as many as SLUICE_E2E_WORKERS says, and fails the spec if they don't come.
func (c *TheCluster) Workers(ctx context.Context) []corev1.Node {
	var workers []corev1.Node
	gomega.EventuallyWithOffset(1, ctx, func(g gomega.Gomega) {
		workers = slices.DeleteFunc(c.Nodes(ctx), func(node corev1.Node) bool {
			return !takesPods(&node)
		})
		g.Expect(len(workers)).To(gomega.BeNumerically(">=", c.workers),
			"nodes that are Ready and take any pod")
	}).WithContext(ctx).WithTimeout(PodPatience).Should(gomega.Succeed())
	return workers
}

func takesPods(node *corev1.Node) bool {
	tainted := slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Effect != corev1.TaintEffectPreferNoSchedule
	})
	return !tainted && !node.Spec.Unschedulable && NodeReady(node)
}

// NodeReady says whether a node's condition Ready is true.
func NodeReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
	})
}

// NodeAddresses are a node's InternalIPs, in the order of its status.
func NodeAddresses(node *corev1.Node) []netip.Addr {
	var addrs []netip.Addr
	for _, address := range node.Status.Addresses {
		addr, err := netip.ParseAddr(address.Address)
		if err == nil && address.Type == corev1.NodeInternalIP {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
