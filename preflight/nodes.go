package preflight

import (
	"slices"

	"github.com/sluice-net/sluice/overlay"
)

const nodesCheck = "nodes"

// Unasked is the result where an API server was to be asked for the Nodes, and didn't answer.
func Unasked(server string, err error) Result {
	r := failed("see that the node reaches it, and that who asks may list Nodes",
		"the API server at %s doesn't say which Nodes there are: %v", server, err)
	r.Check = nodesCheck
	return r.printed()
}

// Asked is the result of having asked it. Of podCIDRs only whether there are any: the check of the
// network has the rest.
func Asked(server, own string, nodes []overlay.Node) Result {
	r := judgeNodes(server, own, nodes)
	r.Check = nodesCheck
	return r.printed()
}

func judgeNodes(server, own string, nodes []overlay.Node) Result {
	i := slices.IndexFunc(nodes, func(n overlay.Node) bool { return n.Name == own })
	if i < 0 {
		return failed("give the name of the Node object: --node-name", "the API server at %s has "+
			"no Node %s among its %d", server, own, len(nodes))
	}
	var without []string
	for _, n := range nodes {
		if len(n.PodCIDRs) == 0 {
			without = append(without, n.Name)
		}
	}
	if len(without) > 0 {
		const remedy = "have kube-controller-manager give them out (--allocate-node-cidrs and " +
			"--cluster-cidr; kubeadm: networking.podSubnet)"
		if slices.Contains(without, own) {
			return failed(remedy, "Nodes without podCIDRs, this one among them: %s",
				firstFew(without))
		}
		return warned(remedy, "other Nodes without podCIDRs: %s", firstFew(without))
	}
	return passed("the API server at %s has %d, each with podCIDRs", server, len(nodes))
}
