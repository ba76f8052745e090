package cluster_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/test/randomcluster"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/selector"
)

func has(t cluster.Traffic, protocol uint8, port uint16) bool {
	switch protocol {
	case policy.ProtocolTCP, policy.ProtocolUDP, policy.ProtocolSCTP:
	default:
		return t.Others
	}
	return slices.ContainsFunc(t.Ports, func(r selector.PortRange) bool {
		return r.Protocol == protocol && r.First <= port && port <= r.Last
	})
}

// TestMeaningEqualsExplain: what is said of whole regions is what is said of each flow in them, for
// each end that this node judges; and the Meaning is that of its moment, whatever happens to the
// cluster later.
func TestMeaningEqualsExplain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		c, w := cluster.New(opts), randomcluster.NewWorld(opts)
		for range rapid.IntRange(5, 60).Draw(t, "events") {
			w.Event(t, c)
		}
		before, m := w.Build(), c.Snapshot()
		for range rapid.IntRange(0, 5).Draw(t, "later") {
			w.Event(t, c)
		}
		checkMeaning(t, before, m.Meaning())
	})
}

func checkMeaning(t *rapid.T, c *cluster.Cluster, m *cluster.Meaning) {
	ends := append(slices.Clone(randomcluster.Addresses), randomcluster.Strangers...)
	for _, e := range m.Attachments() {
		for _, own := range e.Addresses {
			for _, peer := range ends {
				if own.Is4() == peer.Is4() && e.Known {
					checkMeaningOf(t, c, m, e, own, peer)
				}
			}
		}
	}
}

func checkMeaningOf(t *rapid.T, c *cluster.Cluster, m *cluster.Meaning, e cluster.Attachment,
	own, peer netip.Addr) {
	for _, d := range policy.Directions {
		got := m.Allowed(e.Pod, d, peer)
		for _, protocol := range []uint8{1, policy.ProtocolTCP, policy.ProtocolUDP,
			policy.ProtocolSCTP} {
			for _, port := range randomcluster.Ports {
				f := policy.Flow{Source: peer, Destination: own, Protocol: protocol, Port: port}
				if d == policy.Egress {
					f.Source, f.Destination = own, peer
				}
				a := c.Explain(f)
				decision := a.Ingress
				if d == policy.Egress {
					decision = a.Egress
				}
				switch {
				case m.Itself(e.Pod, peer):
					if !got.IsAll() || decision != nil {
						t.Fatalf("%v: a pod can't reach itself", f)
					}
				case decision == nil && a.Exempt != "":
					// a node's own packets; the Meaning knows only policies
				case decision == nil:
					t.Fatalf("%v: %s of %s isn't judged", f, d, e.ID)
				case decision.Allowed != has(got, protocol, port):
					t.Fatalf("%v: meaning %+v, evaluator: %s", f, got, decision)
				}
			}
		}
	}
}
