package enforcer

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
)

// Model is what the node's kernel has to hold: the cluster's policies, compiled for this node, and
// the ruleset that follows from them. It is pure, and not for concurrent use: the Enforcer guards
// it.
type Model struct {
	*cluster.Cluster

	render *ruleset.Renderer
	begun  bool // a whole ruleset was rendered
}

// NewModel returns a Model of a cluster of which nothing is known.
func NewModel(opts cluster.Options, cfg ruleset.Config) *Model {
	return &Model{Cluster: cluster.New(opts), render: ruleset.NewRenderer(cfg)}
}

// setNetwork sets what the ruleset has to know of the pod network, and which addresses policy takes
// for pods'.
func (m *Model) setNetwork(n ruleset.Network) {
	m.SetPodNetworks(n.Pods)
	m.render.SetNetwork(n, m.render.Config().PodRanges)
}

// SetGuard sets the addresses of pods that another plugin wires.
func (m *Model) SetGuard(ranges []netip.Prefix) {
	if cfg := m.render.Config(); !slices.Equal(ranges, cfg.PodRanges) {
		m.render.SetNetwork(cfg.Network, ranges)
	}
}

// setIPVS says whether IPVS may send packets on, and reports whether that is new.
func (m *Model) setIPVS(on bool) (changed bool) {
	changed = m.render.Config().IPVS != on
	m.render.SetIPVS(on)
	return changed
}

// setAttachment adds an attachment of a pod to this node, or changes it.
func (m *Model) setAttachment(a cni.Attachment) {
	m.render.SetHostPorts(a.ID(), hostPortsOf(a))
	m.SetEndpoint(policy.Endpoint{
		ID:        a.ID(),
		Pod:       selector.Pod{Namespace: a.PodNamespace, Name: a.PodName, UID: a.PodUID},
		Interface: a.Interface,
		Addresses: a.Addresses,
	})
}

// deleteAttachment takes an attachment away, by its ID.
func (m *Model) deleteAttachment(id string) {
	m.render.SetHostPorts(id, nil)
	m.DeleteEndpoint(id)
}

// Next takes what changed since the last call, within a budget (see
// cluster.Cluster.TakeSome), and
// renders it. The first call returns a whole ruleset and an empty patch; later calls return a patch
// and no ruleset.
func (m *Model) Next(budget int) (cluster.Changes, *nft.Ruleset, nft.Patch) {
	changes := m.TakeSome(budget)
	if m.begun {
		return changes, nil, m.render.Patch(m.Cluster, changes)
	}
	m.begun = true
	return changes, m.render.Ruleset(m.Cluster), nft.Patch{}
}

// cutBit is the bit of connections' labels that says which are cut. It never changes, and may be
// asked without the Enforcer's lock.
func (m *Model) cutBit() uint8 { return m.render.CutBit() }

// judge says of each connection whether policy allows it now; own are this node's addresses. The
// original destination may be a Service; policy is about the end that answers.
func (m *Model) judge(own []netip.Addr, entries []conntrack.Entry) []bool {
	judge := m.NewJudge(own)
	allowed := make([]bool, len(entries))
	for i := range entries {
		orig, reply := &entries[i].Orig, &entries[i].Reply
		allowed[i] = judge.Allows(policy.Flow{Source: orig.Src, Destination: reply.Src,
			Protocol: orig.Proto, Port: reply.SrcPort})
	}
	return allowed
}

func hostPortsOf(a cni.Attachment) []ruleset.HostPort {
	var out []ruleset.HostPort
	for _, p := range a.HostPorts {
		out = append(out, ruleset.HostPort{
			HostIP: p.HostIP, HostPort: p.HostPort, ContainerPort: p.ContainerPort,
			Protocol: protocolNumber(p.Protocol),
		})
	}
	return out
}

func protocolNumber(name string) uint8 {
	switch name {
	case "udp":
		return policy.ProtocolUDP
	case "sctp":
		return policy.ProtocolSCTP
	}
	return policy.ProtocolTCP
}
