package cluster_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/selector"
	"github.com/sluice-net/sluice/test/cases"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// hereNode is the node that the Cluster belongs to.
var hereNode = nodeAt("here", "1")

// nodeAt is a node of that number, with one address of each family.
func nodeAt(name, number string) policy.Node {
	addresses := addrs("198.51.100."+number, "2001:db8::"+number)
	return policy.Node{
		Name: name, Addresses: addresses, Underlay: addresses,
		PodCIDRs: prefixes("10.244."+number+".0/24", "fd00:"+number+"::/64"),
	}
}

// bench is a small cluster for the life of pods: this node is "here".
type bench struct {
	t *testing.T
	c *cluster.Cluster
	r *replica
}

func newBench(t *testing.T, policies map[string]string) *bench {
	t.Helper()
	b := &bench{t: t, c: cluster.New(cluster.Options{Node: "here"}), r: newReplica()}
	b.c.SetNamespace("dev", nil)
	b.c.SetNode(hereNode)
	b.c.SetNode(nodeAt("there", "2"))
	for k, spec := range policies {
		b.c.SetPolicy(policy.Parse(render(t, k, spec)))
	}
	return b
}

func render(t rapid.TB, key, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	np, err := cases.RenderPolicy(key, spec, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return np
}

func addrs(in ...string) []netip.Addr {
	out := make([]netip.Addr, len(in))
	for i, s := range in {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

func prefixes(in ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(in))
	for i, s := range in {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func pod(name, uid, app string, addresses ...string) policy.Pod {
	node := "here"
	if len(addresses) > 0 && addresses[0] == remoteAddr {
		node = "there"
	}
	return policy.Pod{
		ID:        selector.Pod{Namespace: "dev", Name: name, UID: uid},
		Labels:    selector.LabelSetOf(map[string]string{"app": app}),
		Addresses: addrs(addresses...), Node: node,
	}
}

func attach(p policy.Pod, addresses ...string) policy.Endpoint {
	return policy.Endpoint{ID: "att-" + p.ID.UID, Pod: p.ID,
		Interface: names.PodLink + "-" + p.ID.UID, Addresses: addrs(addresses...)}
}

// expect holds evaluator and compiled model to one verdict for TCP port 80.
func (b *bench) expect(from, to string, want bool) {
	b.t.Helper()
	b.expectFlow(policy.Flow{Source: netip.MustParseAddr(from),
		Destination: netip.MustParseAddr(to), Protocol: policy.ProtocolTCP, Port: 80}, want)
}

func (b *bench) expectFlow(f policy.Flow, want bool) {
	b.t.Helper()
	if err := b.r.apply(b.c, b.c.Take()); err != nil {
		b.t.Fatal(err)
	}
	if a := b.c.Explain(f); a.Allowed != want {
		b.t.Errorf("evaluator: %v: want %v: %s", f, want, a)
	}
	if got := b.r.allowsFlow(f, hereNode); got != want {
		b.t.Errorf("compiled model: %v: got %v, want %v", f, got, want)
	}
}

const (
	webAddr, dbAddr, outAddr = "10.244.1.10", "10.244.1.11", "192.0.2.1"
	dbAddr6                  = "fd00:1::11"
	remoteAddr               = "10.244.2.10"
	dbFromWeb                = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`
)

func TestStartOfAPod(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"dev/p": dbFromWeb})
	db := pod("db", "u1", "db")
	b.c.SetEndpoint(attach(db, dbAddr))
	if ch := b.c.Take(); len(ch.Endpoints) > 0 {
		t.Errorf("an endpoint whose pod is unknown is enforced: %v", ch.Endpoints)
	}
	b.c.SetPod(db) // no address in its status yet, no container has run
	e, ok := b.c.Endpoint("att-u1")
	if ok {
		t.Errorf("enforced before Take: %v", e)
	}
	b.expect(outAddr, dbAddr, false)
	if e, _ := b.c.Endpoint("att-u1"); len(e.Ingress) != 1 || len(e.Egress) != 0 ||
		len(e.Addresses) != 1 {
		t.Errorf("first state of the endpoint: %+v", e)
	}
}

func TestPodWithoutReadinessIsAPeer(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"dev/p": dbFromWeb})
	db, web := pod("db", "u1", "db", dbAddr), pod("web", "u2", "web")
	b.c.SetPod(db)
	b.c.SetEndpoint(attach(db, dbAddr))
	b.c.SetPod(web) // pending, no address
	b.expect(remoteAddr, dbAddr, false)
	web.Addresses, web.Node = addrs(remoteAddr), "there"
	b.c.SetPod(web)
	b.expect(remoteAddr, dbAddr, true)
	web.Terminating = true
	b.c.SetPod(web)
	b.expect(remoteAddr, dbAddr, true)
	web.Finished = true
	b.c.SetPod(web)
	b.expect(remoteAddr, dbAddr, false)
}

func TestFinishedOrForceDeletedPodKeepsItsPolicyUntilDetached(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*cluster.Cluster, policy.Pod){
		"finished":      func(c *cluster.Cluster, p policy.Pod) { p.Finished = true; c.SetPod(p) },
		"force-deleted": func(c *cluster.Cluster, p policy.Pod) { c.DeletePod("dev", p.ID.Name) },
		"replaced under the same name": func(c *cluster.Cluster, p policy.Pod) {
			p.ID.UID, p.Addresses, p.Labels = "other", nil, selector.LabelSet{}
			c.SetPod(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, map[string]string{
				"dev/p": dbFromWeb,
				"dev/q": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}`,
			})
			db, web := pod("db", "u1", "db", dbAddr), pod("web", "u2", "web", webAddr)
			for _, p := range []policy.Pod{db, web} {
				b.c.SetPod(p)
				b.c.SetEndpoint(attach(p, p.Addresses[0].String()))
			}
			b.expect(webAddr, dbAddr, true)
			end(b.c, web)
			b.expect(webAddr, dbAddr, false)  // nobody's peer
			b.expect(webAddr, outAddr, false) // still under its own policy
			b.c.DeleteEndpoint("att-u2")
			b.expect(webAddr, outAddr, true) // nobody's address
			if _, ok := b.c.Endpoint("att-u2"); ok {
				t.Error("the endpoint is still enforced")
			}
		})
	}
}

func TestAddressOnTwoLivePods(t *testing.T) {
	t.Parallel()
	old, young := time.Unix(1000, 0), time.Unix(2000, 0)
	t.Run("remote: the newest that isn't ending", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, map[string]string{"dev/p": dbFromWeb})
		db := pod("db", "u1", "db", dbAddr)
		b.c.SetPod(db)
		b.c.SetEndpoint(attach(db, dbAddr))
		web, other := pod("web", "u2", "web", remoteAddr), pod("other", "u3", "other", remoteAddr)
		web.Created, other.Created = old, young
		b.c.SetPod(web)
		b.expect(remoteAddr, dbAddr, true)
		b.c.SetPod(other)
		b.expect(remoteAddr, dbAddr, false)
		other.Terminating = true
		b.c.SetPod(other)
		b.expect(remoteAddr, dbAddr, true)
		web.Terminating = true
		b.c.SetPod(web)
		b.expect(remoteAddr, dbAddr, false)
		b.c.DeletePod("dev", "other")
		b.expect(remoteAddr, dbAddr, true)
	})
	t.Run("local: the attachment decides", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, map[string]string{"dev/p": dbFromWeb})
		db, web, claim := pod("db", "u1", "db", dbAddr), pod("web", "u2", "web", webAddr),
			pod("claim", "u3", "other", webAddr)
		for _, p := range []policy.Pod{db, web} {
			b.c.SetPod(p)
			b.c.SetEndpoint(attach(p, p.Addresses[0].String()))
		}
		claim.Created = young
		b.c.SetPod(claim)
		b.expect(webAddr, dbAddr, true)
		liar := pod("liar", "u4", "web", outAddr, dbAddr) // claims the victim's address
		liar.Created = young
		b.c.SetPod(liar)
		b.expect(outAddr, dbAddr, false)
		b.expect(remoteAddr, dbAddr, false)
	})
}

// TestAddressOfAPodThatIsGoneButAttached: the address goes to the new pod at once, and the old
// one's attachment enforces nothing on it any more.
func TestAddressOfAPodThatIsGoneButAttached(t *testing.T) {
	t.Parallel()
	for _, created := range []int64{500, 2000} { // older or newer than the other
		b := newBench(t, map[string]string{"dev/p": `{podSelector: {matchLabels: {app: db}}}`})
		gone, db := pod("gone", "u1", "open", dbAddr), pod("db", "u2", "db", dbAddr)
		gone.Created, db.Created = time.Unix(1000, 0), time.Unix(created, 0)
		b.c.SetPod(gone)
		b.c.SetEndpoint(attach(gone, dbAddr))
		b.expect(outAddr, dbAddr, true)
		b.c.DeletePod("dev", "gone")
		b.c.SetEndpoint(attach(db, dbAddr))
		b.c.SetPod(db)
		b.expect(outAddr, dbAddr, false)
		if e, _ := b.c.Endpoint("att-u1"); len(e.Addresses) > 0 {
			t.Errorf("the old attachment still has %v", e.Addresses)
		}
	}
}

func TestHostNetworkPodIsItsNode(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"dev/p": dbFromWeb,
		"dev/q": `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
	})
	db, web := pod("db", "u1", "db", dbAddr), pod("web", "u2", "web", webAddr)
	host := pod("host", "u3", "web", "198.51.100.2")
	host.HostNetwork = true
	host.Ports = policy.PodPortsOf(policy.PodPort{
		NamedPort: policy.NamedPort{Protocol: policy.ProtocolTCP, Name: "http"}, Number: 80})
	for _, p := range []policy.Pod{db, web, host} {
		b.c.SetPod(p)
	}
	b.c.SetEndpoint(attach(db, dbAddr))
	b.c.SetEndpoint(attach(web, webAddr))
	b.expect("198.51.100.2", dbAddr, false)   // never a selector peer
	b.expect(webAddr, "198.51.100.2", false)  // no named ports
	b.expect("198.51.100.2", outAddr, true)   // never selected
	b.expect("198.51.100.1", dbAddr, true)    // its own node is exempt
	b.expect("10.244.1.0", dbAddr, true)      // from any of its addresses
	b.expect("10.244.2.0", dbAddr, false)     // other nodes are not
	b.c.SetEndpoint(attach(host, "10.0.0.9")) // an attachment that can't be
	b.expect("198.51.100.2", dbAddr, false)
	if _, ok := b.c.Endpoint("att-u3"); ok {
		t.Error("an attachment of a hostNetwork pod is let through")
	}
}

// TestTunnelAddressStandsForItsNode: in both directions and families, of another node and of the
// pod's own.
func TestTunnelAddressStandsForItsNode(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		block, block6 string // with the node's number for N
		want          bool
		// the verdict once the node is gone and the address is one like any other
		forgotten bool
	}{
		"one of its addresses": {
			`{cidr: 198.51.100.N/32}`, `{cidr: "2001:db8::N/128"}`, true, false},
		"a range of them": {`{cidr: 198.51.100.0/24}`, `{cidr: "2001:db8::/64"}`, true, false},
		"the tunnel address itself": {
			`{cidr: 10.244.N.0/32}`, `{cidr: "fd00:N::/128"}`, true, true},
		"the pod network": {`{cidr: 10.244.0.0/16}`, `{cidr: "fd00::/16"}`, false, true},
		"the node's pods": {`{cidr: 10.244.N.0/24}`, `{cidr: "fd00:N::/64"}`, false, true},
		"two addresses":   {`{cidr: 10.244.N.0/31}`, `{cidr: "fd00:N::/127"}`, false, true},
		"all addresses":   {`{cidr: 0.0.0.0/0}`, `{cidr: "::/0"}`, true, true},
		"excepted by another address": {`{cidr: 0.0.0.0/0, except: [198.51.100.N/32]}`,
			`{cidr: "::/0", except: ["2001:db8::N/128"]}`, false, true},
		"excepted by the tunnel address": {`{cidr: 0.0.0.0/0, except: [10.244.N.0/32]}`,
			`{cidr: "::/0", except: ["fd00:N::/128"]}`, false, false},
		"excepted with the pod network": {`{cidr: 0.0.0.0/0, except: [10.244.0.0/16]}`,
			`{cidr: "::/0", except: ["fd00::/16"]}`, false, false},
		"a third node's address": {
			`{cidr: 198.51.100.3/32}`, `{cidr: "2001:db8::3/128"}`, false, false},
	} {
		for i, node := range []string{"here", "there"} {
			number := strconv.Itoa(i + 1)
			t.Run(name+"/"+node, func(t *testing.T) {
				t.Parallel()
				blocks := strings.ReplaceAll(`{ipBlock: `+tc.block+`}, {ipBlock: `+tc.block6+`}`,
					"N", number)
				b := newBench(t, map[string]string{
					"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [` + blocks + `]}], egress: [{to: [` + blocks + `]}]}`,
				})
				db := pod("db", "u1", "db", dbAddr, dbAddr6)
				b.c.SetPod(db)
				b.c.SetEndpoint(attach(db, dbAddr, dbAddr6))
				for tunnel, to := range map[string]string{"10.244." + number + ".0": dbAddr,
					"fd00:" + number + "::": dbAddr6} {
					b.expect(to, tunnel, tc.want)
					// what a pod's own node sends always passes
					b.expect(tunnel, to, tc.want || node == "here")
				}
				b.c.DeleteNode(node)
				for tunnel, to := range map[string]string{"10.244." + number + ".0": dbAddr,
					"fd00:" + number + "::": dbAddr6} {
					b.expect(to, tunnel, tc.forgotten)
				}
			})
		}
	}
}

// TestTunnelAddressesOfOneFamily: a block of one family has none of the other's, whosever they are.
func TestTunnelAddressesOfOneFamily(t *testing.T) {
	t.Parallel()
	b := newBench(t,
		map[string]string{
			"dev/p": `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.2/32}}]}]}`})
	db := pod("db", "u1", "db", dbAddr, dbAddr6)
	b.c.SetPod(db)
	b.c.SetEndpoint(attach(db, dbAddr, dbAddr6))
	b.expect("10.244.2.0", dbAddr, true)
	b.expect("fd00:2::", dbAddr6, false)
}

func TestLabelsChangeOnRunningPods(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: good}}, podSelector: {matchLabels: {app: web}}}]}]}`,
	})
	db, web := pod("db", "u1", "other", dbAddr), pod("web", "u2", "web", remoteAddr)
	b.c.SetPod(db)
	b.c.SetEndpoint(attach(db, dbAddr))
	b.c.SetPod(web)
	b.expect(outAddr, dbAddr, true)
	db.Labels = selector.LabelSetOf(map[string]string{"app": "db"})
	b.c.SetPod(db)
	b.expect(outAddr, dbAddr, false)
	b.expect(remoteAddr, dbAddr, false)
	b.c.SetNamespace("dev", map[string]string{"env": "good"})
	b.expect(remoteAddr, dbAddr, true)
	web.Labels = selector.LabelSetOf(map[string]string{"app": "other"})
	b.c.SetPod(web)
	b.expect(remoteAddr, dbAddr, false)
	web.Labels = selector.LabelSetOf(map[string]string{"app": "web"})
	b.c.SetPod(web)
	b.expect(remoteAddr, dbAddr, true)
	b.c.DeleteNamespace("dev")
	b.expect(remoteAddr, dbAddr, false)
	b.c.DeletePolicy(policy.Key{Namespace: "dev", Name: "p"})
	b.expect(outAddr, dbAddr, true)
}

func TestAllNumbersOfANamedPort(t *testing.T) {
	t.Parallel()
	b := newBench(t,
		map[string]string{"dev/p": `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`})
	db := pod("db", "u1", "db", dbAddr)
	http := policy.NamedPort{Protocol: policy.ProtocolTCP, Name: "http"}
	first := policy.PodPort{NamedPort: http, Number: 80}
	db.Ports = policy.PodPortsOf(first, policy.PodPort{NamedPort: http, Number: 8080},
		policy.PodPort{NamedPort: policy.NamedPort{Protocol: policy.ProtocolUDP, Name: "http"},
			Number: 53})
	b.c.SetPod(db)
	b.c.SetEndpoint(attach(db, dbAddr))
	a, out := netip.MustParseAddr(dbAddr), netip.MustParseAddr(outAddr)
	b.expectFlow(policy.Flow{Source: out, Destination: a, Protocol: policy.ProtocolTCP,
		Port: 80}, true)
	b.expectFlow(policy.Flow{Source: out, Destination: a, Protocol: policy.ProtocolTCP,
		Port: 8080}, true)
	b.expectFlow(policy.Flow{Source: out, Destination: a, Protocol: policy.ProtocolUDP,
		Port: 53}, false)
	db.Ports = policy.PodPortsOf(first)
	b.c.SetPod(db)
	b.expectFlow(policy.Flow{Source: out, Destination: a, Protocol: policy.ProtocolTCP,
		Port: 80}, true)
	b.expectFlow(policy.Flow{Source: out, Destination: a, Protocol: policy.ProtocolTCP,
		Port: 8080}, false)
}

func TestPodToNodeSetting(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{false, true} {
		c := cluster.New(cluster.Options{Node: "here", AllowPodToNode: allow})
		c.SetNode(hereNode)
		c.SetPolicy(policy.Parse(render(t, "dev/p", `{podSelector: {}, policyTypes: [Egress]}`)))
		web := pod("web", "u1", "web", webAddr)
		web.Node = "here"
		c.SetPod(web)
		f := policy.Flow{Source: netip.MustParseAddr(webAddr),
			Destination: netip.MustParseAddr("198.51.100.1"), Protocol: policy.ProtocolTCP,
			Port: 10250}
		if a := c.Explain(f); a.Allowed != allow {
			t.Errorf("setting %v: %s", allow, a)
		}
	}
}
