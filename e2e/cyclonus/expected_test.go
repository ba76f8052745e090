package cyclonus

import (
	"fmt"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	"github.com/mattfenwick/cyclonus/pkg/worker"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// expectation is what cyclonus' matcher makes of the objects in the API server. It decides nothing
// about a cell, but says which cells to try again, which are worth waiting for, and what a cell
// counts as over which families differ: what isn't expected.
type expectation struct {
	policy *matcher.Policy
	peers  map[string]*matcher.TrafficPeer // by namespace/name of the pod
	ports  map[string]string               // names, by namespace/name, number and protocol
}

func (c *labCluster) expectation() (expectation, error) {
	var pods corev1.PodList
	var policies networkingv1.NetworkPolicyList
	all, err := c.GetAllNamespaces()
	if err == nil {
		err = c.lab.Client().List(c.ctx, &pods)
	}
	if err == nil {
		err = c.lab.Client().List(c.ctx, &policies)
	}
	if err != nil {
		return expectation{}, err
	}
	labels := map[string]map[string]string{}
	for _, ns := range all.Items {
		labels[ns.Name] = ns.Labels
	}
	var pointers []*networkingv1.NetworkPolicy
	for i := range policies.Items {
		pointers = append(pointers, &policies.Items[i])
	}
	out := expectation{matcher.BuildNetworkPolicies(false, pointers),
		map[string]*matcher.TrafficPeer{}, map[string]string{}}
	for i := range pods.Items {
		pod := &pods.Items[i]
		c.chooseIP(pod)
		key := pod.Namespace + "/" + pod.Name
		internal := &matcher.InternalPeer{PodLabels: pod.Labels,
			NamespaceLabels: labels[pod.Namespace], Namespace: pod.Namespace}
		out.peers[key] = &matcher.TrafficPeer{Internal: internal, IP: pod.Status.PodIP}
		for _, container := range pod.Spec.Containers {
			for _, port := range container.Ports {
				out.ports[portKey(key, int(port.ContainerPort), port.Protocol)] = port.Name
			}
		}
	}
	return out, nil
}

func portKey(pod string, port int, protocol corev1.Protocol) string {
	return fmt.Sprintf("%s %d %s", pod, port, protocol)
}

// allows says whether a cell is expected to connect.
func (e expectation) allows(from, to string, request *worker.Request) bool {
	return e.policy.IsTrafficAllowed(&matcher.Traffic{
		Source: e.peers[from], Destination: e.peers[to],
		ResolvedPort:     request.Port,
		ResolvedPortName: e.ports[portKey(to, request.Port, request.Protocol)],
		Protocol:         request.Protocol,
	}).IsAllowed()
}
