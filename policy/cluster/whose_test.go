package cluster_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

const (
	thirdAddr, nobodysAddr = "10.244.3.10", "10.244.9.10"
	hostAddr               = "203.0.113.7" // an outside host's
	aliceAddr              = "10.9.0.10"   // of no pod CIDR
)

// newWhoseBench has db, which admits pods with the label app=web, and real, one of them, at
// remoteAddr on node "there".
func newWhoseBench(t *testing.T, opts cluster.Options) *bench {
	t.Helper()
	opts.Node = "here"
	b := &bench{t: t, c: cluster.New(opts), r: newReplica()}
	if !opts.PolicyOnly {
		b.c.SetPodNetworks(prefixes("10.244.0.0/16", "fd00::/16"))
	}
	b.c.SetNamespace("dev", nil)
	for number, name := range map[string]string{"1": "here", "2": "there", "3": "third"} {
		b.c.SetNode(nodeAt(name, number))
	}
	b.c.SetPolicy(policy.Parse(render(t, "dev/p", dbFromWeb)))
	db, web := pod("db", "u1", "db", dbAddr), pod("real", "u2", "web", remoteAddr)
	web.Created = time.Unix(1000, 0)
	for _, p := range []policy.Pod{db, web} {
		b.c.SetPod(p)
	}
	b.c.SetEndpoint(attach(db, dbAddr))
	return b
}

// claimant is a newer pod that says it has an address.
func claimant(node, app string, addresses ...string) policy.Pod {
	p := pod("claimant", "u9", app, addresses...)
	p.Node, p.Created = node, time.Unix(2000, 0)
	return p
}

// TestWhoseAddressItIs: what a pod's status says counts only where it can be true of a pod of its
// node. Whoever else really has the address keeps what he was.
func TestWhoseAddressItIs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		node, address   string
		own, policyOnly bool // whether it is believed, in our own network and in another plugin's
	}{
		"of its node's range":         {"third", thirdAddr, true, true},
		"of another node's range":     {"third", "10.244.2.11", false, false},
		"of this node's range":        {"third", "10.244.1.99", false, false},
		"of a range that no node has": {"third", nobodysAddr, false, true},
		"elsewhere":                   {"third", aliceAddr, false, true},
		// which can't be known there
		"an outside host's":                  {"third", hostAddr, false, true},
		"its node's":                         {"third", "198.51.100.3", false, false},
		"another node's":                     {"third", "198.51.100.2", false, false},
		"its node's tunnel address":          {"third", "10.244.3.0", false, false},
		"of a node that isn't known":         {"nowhere", nobodysAddr, false, false},
		"while it isn't scheduled":           {"", thirdAddr, false, false},
		"here, but not attached":             {"here", "10.244.1.98", true, true},
		"IPv6 of its node's range":           {"third", "fd00:3::9", true, true},
		"IPv6 of another node's":             {"third", "fd00:2::9", false, false},
		"of the other family, of its node's": {"third", "2001:db8::3", false, false},
	} {
		for _, policyOnly := range []bool{false, true} {
			want, mode := tc.own, "/ours"
			if policyOnly {
				want, mode = tc.policyOnly, "/policyOnly"
			}
			t.Run(name+mode, func(t *testing.T) {
				t.Parallel()
				b := newWhoseBench(t, cluster.Options{PolicyOnly: policyOnly})
				to := dbAddr
				if netip.MustParseAddr(tc.address).Is6() {
					to = dbAddr6
					db := pod("db", "u1", "db", dbAddr, dbAddr6)
					b.c.SetPod(db)
					b.c.SetEndpoint(attach(db, dbAddr, dbAddr6))
				}
				b.expect(tc.address, to, false)
				b.c.SetPod(claimant(tc.node, "web", tc.address))
				b.expect(tc.address, to, want)
				if got := b.c.PodAddresses("dev", "claimant"); (len(got) > 0) != want {
					t.Errorf("the pod has %v", got)
				}
				a := b.c.Explain(policy.Flow{Source: netip.MustParseAddr(tc.address),
					Destination: netip.MustParseAddr(to), Protocol: policy.ProtocolTCP, Port: 80})
				if named := a.Egress != nil; named != want {
					t.Errorf("named as who sends: %v: %s", named, a)
				}
			})
		}
	}
}

// TestImpostors: a newer pod that says it has another's address takes nothing from it, nor gives it
// anything.
func TestImpostors(t *testing.T) {
	t.Parallel()
	for _, policyOnly := range []bool{false, true} {
		b := newWhoseBench(t, cluster.Options{PolicyOnly: policyOnly})
		b.expect(remoteAddr, dbAddr, true)
		b.c.SetPod(claimant("third", "evil", "10.244.3.9", remoteAddr, dbAddr))
		b.expect(remoteAddr, dbAddr, true)
		b.expect("10.244.3.9", dbAddr, false)
		b.c.SetPod(claimant("third", "web", "10.244.3.9", remoteAddr, dbAddr))
		b.expect("10.244.3.9", dbAddr, true)
		b.c.DeletePod("dev", "real")
		b.expect(remoteAddr, dbAddr, false) // the liar doesn't inherit it
	}
}

// TestOlderPodElsewhereKeepsItsAddress: where another plugin gives addresses that tell no node, who
// had it first on another node keeps it while it lives; on one node an address goes to the next.
func TestOlderPodElsewhereKeepsItsAddress(t *testing.T) {
	t.Parallel()
	b := newWhoseBench(t, cluster.Options{PolicyOnly: true})
	alice := pod("alice", "u5", "web", aliceAddr)
	alice.Node, alice.Created = "there", time.Unix(1000, 0)
	b.c.SetPod(alice)
	b.expect(aliceAddr, dbAddr, true)
	b.c.SetPod(claimant("third", "evil", aliceAddr))
	b.expect(aliceAddr, dbAddr, true)
	b.c.SetPod(claimant("there", "next", aliceAddr))
	b.expect(aliceAddr, dbAddr, false)
	b.c.SetPod(claimant("third", "evil", aliceAddr))
	alice.Terminating = true
	b.c.SetPod(alice)
	b.expect(aliceAddr, dbAddr, false)
	alice.Terminating = false
	b.c.SetPod(alice)
	b.expect(aliceAddr, dbAddr, true)
	// A pod here says so too, and nobody but its status knows: it is under its policies by this
	// address, but isn't met there.
	mallory := claimant("here", "db", dbAddr, aliceAddr)
	b.c.SetPod(mallory)
	b.c.SetEndpoint(policy.Endpoint{ID: "status/dev/claimant", Pod: mallory.ID,
		Addresses: mallory.Addresses, FromStatus: true})
	b.expect(aliceAddr, dbAddr, true)
	b.expect(outAddr, aliceAddr, false)
	if got := b.c.PodAddresses("dev", "claimant"); len(got) > 0 {
		t.Errorf("it has %v", got)
	}
}

// TestNodesDecideLate: whatever comes first, pod or Node, and whatever becomes of the Node, a pod
// is met at its address while its node is believed to have it. A Node concerns its own pods only.
func TestNodesDecideLate(t *testing.T) {
	t.Parallel()
	for _, policyOnly := range []bool{false, true} {
		b := newWhoseBench(t, cluster.Options{PolicyOnly: policyOnly})
		b.c.SetPod(claimant("fourth", "web", "10.244.4.10"))
		b.expect("10.244.4.10", dbAddr, false)
		bare := nodeAt("fourth", "4")
		bare.PodCIDRs = nil // as a Node is born
		b.c.SetNode(bare)
		b.expect("10.244.4.10", dbAddr, policyOnly)
		b.c.SetNode(nodeAt("fourth", "4"))
		b.expect("10.244.4.10", dbAddr, true)
		b.c.SetNode(policy.Node{Name: "fifth", PodCIDRs: prefixes("10.244.4.0/25"),
			Created: time.Unix(5000, 0)})
		b.expect("10.244.4.10", dbAddr, true) // it is younger
		b.c.SetNode(policy.Node{Name: "fourth", PodCIDRs: prefixes("10.244.4.0/24"),
			Created: time.Unix(6000, 0)})
		b.expect("10.244.4.10", dbAddr, false) // now it isn't
		b.c.DeleteNode("fifth")
		b.expect("10.244.4.10", dbAddr, true)
		b.c.DeleteNode("fourth")
		ch := b.c.Take()
		if want := addrs("10.244.4.10"); !slices.Equal(ch.Left, want) {
			t.Errorf("left %v, want %v", ch.Left, want)
		}
		for id, set := range ch.Sets {
			if len(set.Add)+len(set.Remove) != 1 {
				t.Errorf("one pod lost its address, but of set %s %v came and %v went", id, set.Add,
					set.Remove)
			}
		}
		if err := b.r.apply(b.c, ch); err != nil {
			t.Fatal(err)
		}
		b.expect("10.244.4.10", dbAddr, false)
		b.expect(remoteAddr, dbAddr, true)
		b.c.SetNode(nodeAt("fourth", "4"))
		b.expect("10.244.4.10", dbAddr, true)
	}
}

// TestRangesOutsideThePodNetwork: a Node whose pod CIDR is outside gets nobody's address for its
// pods or its tunnel, before and after the pod network is known otherwise.
func TestRangesOutsideThePodNetwork(t *testing.T) {
	t.Parallel()
	b := newWhoseBench(t, cluster.Options{})
	b.c.SetPolicy(policy.Parse(render(t, "dev/q",
		`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.4/32}}]}]}`)))
	outside := nodeAt("fourth", "4")
	outside.PodCIDRs = prefixes("203.0.113.0/29", "203.0.113.64/32")
	b.c.SetNode(outside)
	b.c.SetPod(claimant("fourth", "web", hostAddr))
	b.expect(hostAddr, dbAddr, false)
	b.expect("203.0.113.64", dbAddr, false)
	b.c.SetPodNetworks(prefixes("10.244.0.0/16", "203.0.113.0/24"))
	b.expect(hostAddr, dbAddr, true)
	b.expect("203.0.113.64", dbAddr, true)
	b.c.SetPodNetworks(prefixes("10.244.0.0/16"))
	b.expect(hostAddr, dbAddr, false)
	b.expect("203.0.113.64", dbAddr, false)
}

// TestClaimedNodeAddresses: what a Node says of its addresses admits nothing to an ipBlock but what
// comes from its place on the underlay.
func TestClaimedNodeAddresses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		claim policy.Node
		block string
		want  bool
	}{
		"an InternalIP": {policy.Node{Addresses: addrs("198.51.100.4"),
			Underlay: addrs("198.51.100.4")}, "198.51.100.4/32", true},
		"an ExternalIP": {policy.Node{Addresses: addrs("198.51.100.4", hostAddr),
			Underlay: addrs("198.51.100.4")}, "203.0.113.7/32", false},
		"an older node's": {policy.Node{Addresses: addrs("198.51.100.2"),
			Underlay: addrs("198.51.100.2")}, "198.51.100.2/32", false},
		"this node's": {policy.Node{Addresses: addrs("198.51.100.1"),
			Underlay: addrs("198.51.100.1")}, "198.51.100.1/32", false},
		"a pod's": {policy.Node{Addresses: addrs(remoteAddr),
			Underlay: addrs(remoteAddr)}, "10.244.2.10/32", false},
		"loopback": {policy.Node{Addresses: addrs("127.0.0.1"),
			Underlay: addrs("127.0.0.1")}, "127.0.0.0/8", false},
		"all, but one is excepted": {policy.Node{Addresses: addrs("198.51.100.4", hostAddr),
			Underlay: addrs("198.51.100.4")}, "0.0.0.0/0, except: [203.0.113.7/32]", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWhoseBench(t, cluster.Options{})
			b.c.SetPolicy(policy.Parse(render(t, "dev/p",
				`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: `+tc.block+`}}]}]}`)))
			tc.claim.Name, tc.claim.Created, tc.claim.PodCIDRs = "fourth", time.Unix(9000, 0),
				prefixes("10.244.4.0/24")
			b.c.SetNode(tc.claim)
			b.expect("10.244.4.0", dbAddr, tc.want)
			prefix := netip.MustParsePrefix(tc.block[:slices.Index([]byte(tc.block+","), ',')])
			if prefix.IsSingleIP() && prefix.Addr() != hereNode.Underlay[0] {
				b.expect(prefix.Addr().String(), dbAddr, true) // who really has it
			}
		})
	}
}

// TestNodeKeepsItsAddresses: a pod of this node whose status says an address of the node is under
// its policies by it, as far as objects tell. Where an interface of the node has the address nobody
// but the node is there, for whoever asks why and for connections that run.
func TestNodeKeepsItsAddresses(t *testing.T) {
	t.Parallel()
	const underlay, tunnel = "198.51.100.1", "10.244.1.0"
	for _, toNode := range []bool{false, true} {
		for name, tc := range map[string]struct {
			from, to string
			// without the pod; with it; and where interfaces have the addresses
			bare, claimed, owned bool
		}{
			"the node to itself":         {tunnel, tunnel, true, false, true},
			"by its other address":       {underlay, underlay, true, false, true},
			"the node to a pod":          {tunnel, dbAddr, true, false, true},
			"the node to a host outside": {underlay, outAddr, true, false, true},
			"a host outside to the node": {outAddr, underlay, true, false, true},
			"a pod to the node":          {dbAddr, underlay, toNode, false, toNode},
			"a host outside to a pod":    {outAddr, dbAddr, false, false, false},
		} {
			b := newWhoseBench(t, cluster.Options{PolicyOnly: true, AllowPodToNode: toNode})
			b.c.SetPolicy(policy.Parse(render(t, "dev/deny",
				`{podSelector: {}, policyTypes: [Ingress, Egress]}`)))
			own := addrs(underlay, tunnel)
			f := policy.Flow{Source: netip.MustParseAddr(tc.from),
				Destination: netip.MustParseAddr(tc.to), Protocol: policy.ProtocolTCP, Port: 80}
			check := func(when string, want bool, own ...netip.Addr) {
				t.Helper()
				b.c.Take()
				if a := b.c.Explain(f, own...); a.Allowed != want {
					t.Errorf("--pod-to-node %v: %s, %s: want %v: %s", toNode, name, when, want, a)
				}
			}
			check("nobody says so", tc.bare, own...)
			liar := claimant("here", "liar", underlay, tunnel)
			b.c.SetPod(liar)
			b.c.SetEndpoint(policy.Endpoint{ID: "status/dev/claimant", Pod: liar.ID,
				Addresses: liar.Addresses, FromStatus: true})
			check("a pod says so", tc.claimed)
			check("and interfaces don't", tc.owned, own...)
			if got := b.c.NewJudge(own).Allows(f); got != tc.owned {
				t.Errorf("--pod-to-node %v: %s: a connection that runs: allowed %v, want %v",
					toNode, name, got, tc.owned)
			}
		}
	}
}
