package kubenetworkpolicies

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	cnp "sigs.k8s.io/kube-network-policies/plugins/npa-v1alpha2"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/network-policy-api/pkg/client/clientset/versioned"
	cnpinformers "sigs.k8s.io/network-policy-api/pkg/client/informers/externalversions"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// cell is a new connection that both are asked about.
type cell struct {
	from, to netip.Addr
	protocol corev1.Protocol
	port     int
}

func (c cell) String() string {
	return fmt.Sprintf("%s > %s %s %d", c.from, c.to, c.protocol, c.port)
}

// ours is the world as policy gets it.
func (w *world) ours() *cluster.Cluster {
	// the other one knows of no pod CIDRs
	c := cluster.New(cluster.Options{Node: "node1", PolicyOnly: true})
	c.SetNode(policy.Node{Name: "node1"})
	for name, labels := range w.namespaces {
		c.SetNamespace(name, labels)
	}
	for _, pod := range w.pods {
		c.SetPod(policy.PodFrom(pod))
	}
	for _, np := range w.policies {
		c.SetPolicy(policy.Parse(np))
	}
	for _, p := range w.tiers {
		c.SetPolicy(policy.ParseCluster(p))
	}
	return c
}

func flowOf(c cell) policy.Flow {
	return policy.Flow{Source: c.from, Destination: c.to, Port: uint16(c.port),
		Protocol: map[corev1.Protocol]uint8{corev1.ProtocolTCP: policy.ProtocolTCP,
			corev1.ProtocolUDP: policy.ProtocolUDP, corev1.ProtocolSCTP: policy.ProtocolSCTP,
		}[c.protocol]}
}

// decision is what one end of a connection says of it.
type decision struct {
	end, by string
	allowed bool
}

func (d decision) String() string {
	verdict := "denied"
	if d.allowed {
		verdict = "allowed"
	}
	return d.end + " " + verdict + " by " + d.by
}

func (d decision) compare(o decision) int { return strings.Compare(d.String(), o.String()) }

// nobody decides where no policy does; then all is allowed.
const nobody = "nobody"

// decisions are all that there can be.
func decisions() (out []decision) {
	for _, e := range ends {
		for _, by := range order {
			out = append(out, decision{e.name, by, true}, decision{e.name, by, false})
		}
		out = append(out, decision{e.name, nobody, true})
	}
	return out
}

// order is who is asked first.
var order = []string{"Admin", "NetworkPolicy", "Baseline"}

// direction is an end of a connection, as either of the two knows it.
type direction struct {
	name string
	of   func(cluster.Answer) *cluster.Decision
	ask  func(api.PolicyEvaluator, *network.Packet, *api.PodInfo, *api.PodInfo) (api.Verdict, error)
}

var ends = []direction{
	{"egress", func(a cluster.Answer) *cluster.Decision { return a.Egress },
		func(e api.PolicyEvaluator, p *network.Packet, from, to *api.PodInfo) (api.Verdict, error) {
			return e.EvaluateEgress(context.Background(), p, from, to)
		}},
	{"ingress", func(a cluster.Answer) *cluster.Decision { return a.Ingress },
		func(e api.PolicyEvaluator, p *network.Packet, from, to *api.PodInfo) (api.Verdict, error) {
			return e.EvaluateIngress(context.Background(), p, from, to)
		}},
}

// allows is what policy says of one end; one that is no pod allows all.
func (d direction) allows(a cluster.Answer) bool {
	decision := d.of(a)
	return decision == nil || decision.Allowed
}

// theirs is the world as kube-network-policies gets it, by its informers' caches.
type theirs struct {
	evaluators []api.PolicyEvaluator   // in the order
	pods       map[string]*api.PodInfo // by address
}

func (w *world) theirs() (*theirs, error) {
	// Nothing is ever asked of these clients: the caches are filled by hand.
	factory := informers.NewSharedInformerFactory(&kubernetes.Clientset{}, 0)
	tiers := cnpinformers.NewSharedInformerFactory(&versioned.Clientset{}, 0).Policy().V1alpha2().
		ClusterNetworkPolicies()
	core, policies := factory.Core().V1(), factory.Networking().V1().NetworkPolicies()
	out := &theirs{pods: map[string]*api.PodInfo{}}
	fill := func(of cache.SharedIndexInformer, object any) error {
		return of.GetIndexer().Add(object)
	}
	for _, pod := range w.pods {
		info := api.NewPodInfo(pod, w.namespaces[pod.Namespace], nil, "")
		for _, address := range pod.Status.PodIPs {
			out.pods[address.IP] = info
		}
		if err := fill(core.Pods().Informer(), pod); err != nil {
			return nil, err
		}
	}
	for _, np := range w.policies {
		if err := fill(policies.Informer(), np); err != nil {
			return nil, err
		}
	}
	for _, p := range w.tiers {
		if err := fill(tiers.Informer(), asV1alpha2(p)); err != nil {
			return nil, err
		}
	}
	nodes := core.Nodes().Lister()
	out.evaluators = []api.PolicyEvaluator{
		cnp.NewClusterNetworkPolicy(v1alpha2.AdminTier, tiers, nil, nodes),
		networkpolicy.NewStandardNetworkPolicy("node1", core.Namespaces(), core.Pods(), policies),
		cnp.NewClusterNetworkPolicy(v1alpha2.BaselineTier, tiers, nil, nodes),
	}
	return out, nil
}

// decide asks one end, as its engine does.
func (j *theirs) decide(c cell, end direction) (decision, error) {
	family := corev1.IPv4Protocol
	if c.from.Is6() {
		family = corev1.IPv6Protocol
	}
	packet := &network.Packet{Family: family, SrcIP: c.from.AsSlice(), DstIP: c.to.AsSlice(),
		Proto: c.protocol, SrcPort: 40000, DstPort: c.port}
	for i, evaluator := range j.evaluators {
		verdict, err := end.ask(evaluator, packet, j.pods[c.from.String()], j.pods[c.to.String()])
		if err != nil {
			return decision{}, err
		}
		if verdict != api.VerdictNext {
			return decision{end.name, order[i], verdict == api.VerdictAccept}, nil
		}
	}
	return decision{end.name, nobody, true}, nil
}
