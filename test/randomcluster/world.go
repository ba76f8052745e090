// Package randomcluster generates random histories of a cluster: events on namespaces, pods, nodes,
// policies and attachments, and the end state that they lead to. Property tests replay the events
// on what they test and compare with the end state.
//
// The universe is small, so that things collide: addresses that two pods claim, policies that
// select each other's peers, fields that can't be read.
package randomcluster

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

// Options draws what a Cluster knows of its node, n1.
func Options(t *rapid.T) cluster.Options {
	return cluster.Options{
		Node: "n1", PolicyOnly: rapid.Bool().Draw(t, "policy only"),
		MergeFrom: rapid.SampledFrom([]int{1, 2, 8}).Draw(t, "merge from"),
	}
}

// World is the end state that a sequence of events led to.
type World struct {
	opts       cluster.Options
	networks   []netip.Prefix
	namespaces map[string]map[string]string
	nodes      map[string]policy.Node
	policies   map[policy.Key]policy.Policy
	pods       map[policy.Key]policy.Pod
	endpoints  map[string]policy.Endpoint
	// ghosts are attached pods whose object is gone.
	ghosts map[selector.Pod]policy.Pod
}

// NewWorld returns an empty World.
func NewWorld(opts cluster.Options) *World {
	return &World{opts, nil, map[string]map[string]string{}, map[string]policy.Node{},
		map[policy.Key]policy.Policy{}, map[policy.Key]policy.Pod{}, map[string]policy.Endpoint{},
		map[selector.Pod]policy.Pod{}}
}

// Build feeds the end state to a new Cluster, once.
func (w *World) Build() *cluster.Cluster {
	c := cluster.New(w.opts)
	c.SetPodNetworks(w.networks)
	for _, e := range w.endpoints {
		c.SetEndpoint(e)
	}
	for _, p := range w.ghosts {
		c.SetPod(p)
		c.DeletePod(p.ID.Namespace, p.ID.Name)
	}
	for _, p := range w.pods {
		c.SetPod(p)
	}
	for _, p := range w.policies {
		c.SetPolicy(p)
	}
	for name, l := range w.namespaces {
		c.SetNamespace(name, l)
	}
	for _, n := range w.nodes {
		c.SetNode(n)
	}
	return c
}

func (w *World) attached(p selector.Pod) bool {
	for _, e := range w.endpoints {
		if e.Pod == p {
			return true
		}
	}
	return false
}

// dropPod notes that a pod's object is gone.
func (w *World) dropPod(k policy.Key) {
	if p, ok := w.pods[k]; ok {
		delete(w.pods, k)
		if w.attached(p.ID) {
			w.ghosts[p.ID] = p
		}
	}
}

func (w *World) forgetGhosts() {
	maps.DeleteFunc(w.ghosts, func(p selector.Pod, _ policy.Pod) bool { return !w.attached(p) })
}

// Event draws one event, and applies it to the cluster and to the world.
func (w *World) Event(t *rapid.T, c *cluster.Cluster) {
	namespace := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace")
	name := rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "name")
	key := policy.Key{Namespace: namespace, Name: name}
	if rapid.IntRange(0, 4).Draw(t, "of the cluster") == 0 {
		w.clusterEvent(t, c, name)
		return
	}
	switch rapid.IntRange(0, 11).Draw(t, "event") {
	case 0:
		l := labelsGen().Draw(t, "labels")
		w.namespaces[namespace] = l
		c.SetNamespace(namespace, l)
	case 1:
		delete(w.namespaces, namespace)
		c.DeleteNamespace(namespace)
	case 2, 3:
		p := podGen(namespace, name).Draw(t, "pod")
		if old, ok := w.pods[key]; ok && old.ID != p.ID {
			w.dropPod(key)
		}
		delete(w.ghosts, p.ID)
		w.pods[key] = p
		c.SetPod(p)
	case 4:
		w.dropPod(key)
		c.DeletePod(namespace, name)
	case 5, 6:
		p := policy.Parse(rapid.OneOf(policyGen(namespace, name), alikeGen(namespace, name)).
			Draw(t, "policy"))
		w.policies[key] = p
		c.SetPolicy(p)
	case 7:
		delete(w.policies, key)
		c.DeletePolicy(key)
	case 8:
		id := rapid.SampledFrom([]string{"e1", "e2", "e3"}).Draw(t, "endpoint")
		if rapid.IntRange(0, 3).Draw(t, "detach") == 0 {
			delete(w.endpoints, id)
			c.DeleteEndpoint(id)
		} else {
			e := policy.Endpoint{
				ID: id, Pod: selector.Pod{Namespace: namespace, Name: name, UID: uuid1},
				Interface: rapid.SampledFrom([]string{names.PodLink + id, ""}).Draw(t, "interface"),
				Addresses: rapid.SliceOfNDistinct(rapid.SampledFrom(Addresses), 1, 2,
					rapid.ID[netip.Addr]).Draw(t, "addresses"),
				FromStatus: w.opts.PolicyOnly && rapid.Bool().Draw(t, "from its status"),
			}
			if e.FromStatus {
				e.Interface = ""
			}
			if w.endpoints[id].Pod != e.Pod {
				delete(w.endpoints, id)
				w.forgetGhosts()
			}
			w.endpoints[id] = e
			c.SetEndpoint(e)
		}
		w.forgetGhosts()
	case 9:
		if w.networks = nil; rapid.Bool().Draw(t, "networks known") {
			w.networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25"),
				netip.MustParsePrefix("fd00::/64")}
		}
		c.SetPodNetworks(w.networks)
	default:
		w.nodeEvent(t, c)
	}
}

// nodeEvent sets or deletes a node.
func (w *World) nodeEvent(t *rapid.T, c *cluster.Cluster) {
	n := policy.Node{
		Name: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"),
		Addresses: rapid.SliceOfN(rapid.SampledFrom(slices.Concat(Strangers, Addresses[:2])), 0,
			2).Draw(t, "addresses"),
		PodCIDRs: rapid.SliceOfN(rapid.Map(rapid.SampledFrom(ranges), netip.MustParsePrefix),
			0, 2).Draw(t, "pod CIDR"),
		Created: time.Unix(rapid.Int64Range(1, 2).Draw(t, "created"), 0),
	}
	if len(n.Addresses) > 0 {
		n.Underlay = n.Addresses[:1]
	}
	if n.Name == "n2" && rapid.Bool().Draw(t, "delete node") {
		delete(w.nodes, n.Name)
		c.DeleteNode(n.Name)
	} else {
		w.nodes[n.Name] = n
		c.SetNode(n)
	}
}

// clusterEvent sets or deletes a ClusterNetworkPolicy.
func (w *World) clusterEvent(t *rapid.T, c *cluster.Cluster, name string) {
	if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
		key := policy.Key{Name: name}
		delete(w.policies, key)
		c.DeletePolicy(key)
		return
	}
	p := policy.ParseCluster(clusterPolicyGen(name).Draw(t, "cluster policy"))
	w.policies[p.Key] = p
	c.SetPolicy(p)
}
