package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Meaning is what a cluster's policies mean, as of one moment, for whole classes of flows: where
// Explain judges one flow, Meaning says which ports of which protocols are allowed. Like Explain it
// reads the policies themselves, and nothing of what was compiled from them.
//
// It remembers what it found out, and is not safe for concurrent use; but the Cluster may go on
// changing.
type Meaning struct {
	c         *Cluster // a copy that never changes; what Take needs is left out
	endpoints []Attachment
	subjects  map[selector.Pod]*subject
	// peers numbers the peers that the policies of this node's pods name, by what rules do.
	peers     []rulePeer
	numbers   map[string]int
	keys      map[string]bool // of labels that any of them looks at
	byLabels  map[string][]byte
	blocks    []int // numbers of those peers that are blocks
	views     map[string]View
	known     []view
	addresses map[netip.Addr]View
	allowed   map[allowedKey]Traffic
}

// Attachment is an endpoint of this node, as it is now.
type Attachment struct {
	policy.Endpoint // Addresses are only those that the pod's policies govern, sorted
	// Known: the pod is, so that its policies are enforced. What isn't known carries nothing.
	Known bool
}

// View numbers what policies see of an address: two addresses of one View are allowed the same, but
// for those of the pod itself.
type View int

type view struct {
	peers []byte // bit for bit, whether a peer matches
	pod   *podRecord
}

// has reports whether the peer with a number matches.
func (v *view) has(n int) bool { return v.peers[n/8]&(1<<(n%8)) != 0 }

// subject is a pod of this node and the policies that select it.
type subject struct {
	pod      *podRecord
	policies [2]tiers // by direction
	// profile tells subjects apart that policies treat differently.
	profile [2]string
}

type allowedKey struct {
	profile   string
	direction policy.Direction
	view      View
}

// Snapshot copies what the cluster's policies mean now. It costs no more than copying a few maps:
// the rest is worked out by Meaning, later.
func (c *Cluster) Snapshot() *Cluster {
	c.settle()
	out := &Cluster{
		opts:       c.opts,
		namespaces: maps.Clone(c.namespaces),
		tiered:     c.tiered,
		nodes:      nodeBook{standing: c.nodes.standing},
		policies:   maps.Clone(c.policies),
		endpoints:  maps.Clone(c.endpoints),
	}
	out.pods.records = c.pods.records.snapshot()
	// Meaning fills them, as far as it needs them.
	out.pods.current = newHashIndex(out.pods.records.key)
	out.pods.claims = newClaimBook(out.pods.records)
	out.pods.former = map[selector.Pod]selector.Number{}
	return out
}

// Meaning says what the policies mean. The Cluster must be a Snapshot, and is the Meaning's from
// then on.
func (c *Cluster) Meaning() *Meaning {
	for r := range c.pods.records.all() {
		for _, a := range r.addresses() {
			c.pods.claims.add(a, r.number)
		}
		if len(r.endpoints) > 0 { // nobody asks for others by name
			c.pods.former[r.ID] = r.number
		}
	}
	m := &Meaning{
		c:         c,
		subjects:  map[selector.Pod]*subject{},
		numbers:   map[string]int{},
		keys:      map[string]bool{},
		byLabels:  map[string][]byte{},
		views:     map[string]View{},
		addresses: map[netip.Addr]View{},
		allowed:   map[allowedKey]Traffic{},
	}
	ordered := c.Policies()
	for _, id := range slices.Sorted(maps.Keys(c.endpoints)) {
		e := c.endpoints[id]
		rec := c.pods.find(e.Pod)
		a := Attachment{Endpoint: e, Known: c.enforced(rec)}
		a.Addresses = slices.DeleteFunc(c.pods.governed(rec), func(x netip.Addr) bool {
			return !slices.Contains(e.Addresses, x)
		})
		m.endpoints = append(m.endpoints, a)
		if a.Known && m.subjects[e.Pod] == nil {
			m.subjects[e.Pod] = m.newSubject(rec, ordered)
		}
	}
	return m
}

func (m *Meaning) newSubject(rec *podRecord, ordered []policy.Key) *subject {
	s, namespace := &subject{pod: rec}, m.c.namespace(rec.ID.Namespace)
	for _, d := range policy.Directions {
		var profile strings.Builder
		var policies []*policy.Policy
		for _, k := range ordered {
			p := m.c.policies[k]
			if p.Section(d) == nil || !p.Subject.Matches(namespace, rec.Labels) {
				continue
			}
			policies = append(policies, p)
			fmt.Fprintf(&profile, "%s\n", k)
			for _, r := range p.Section(d).Rules {
				m.addPeers(&r)
			}
		}
		if d == policy.Ingress {
			fmt.Fprintf(&profile, "%v", rec.Ports) // that names stand for
		}
		s.policies[d], s.profile[d] = inTiers(policies), profile.String()
	}
	return s
}

// rulePeer is a peer of rules that deny, or of others.
type rulePeer struct {
	policy.Peer
	deny bool
}

func (p *rulePeer) text() string {
	if p.deny {
		return "deny " + p.String()
	}
	return p.String()
}

func (m *Meaning) addPeers(r *policy.Rule) {
	for _, peer := range r.Peers {
		p := rulePeer{peer, r.Verdict == policy.Deny}
		text := p.text()
		if _, ok := m.numbers[text]; ok {
			continue
		}
		m.numbers[text] = len(m.peers)
		if p.Block != nil {
			m.blocks = append(m.blocks, len(m.peers))
		} else {
			for _, r := range p.Selector.Pods {
				m.keys[r.Key] = true
			}
		}
		m.peers = append(m.peers, p)
	}
}

// Attachments lists the endpoints of this node by ID.
func (m *Meaning) Attachments() []Attachment { return m.endpoints }

// NodeAddresses lists what is known of this node's addresses.
func (m *Meaning) NodeAddresses() []netip.Addr {
	n := m.c.nodes.standing.nodes[m.c.opts.Node]
	return slices.Concat(n.Addresses, n.TunnelAddresses())
}

// Selecting lists the policies that have a say on a pod of this node in a direction, in the order
// in which they are asked. None: the direction is open.
func (m *Meaning) Selecting(p selector.Pod, d policy.Direction) []policy.Key {
	s := m.subjects[p]
	if s == nil {
		return nil
	}
	var out []policy.Key
	for _, pol := range slices.Concat(s.policies[d][:]...) {
		out = append(out, pol.Key)
	}
	return out
}

// Open reports whether no policy has a say on a pod of this node in a direction.
func (m *Meaning) Open(p selector.Pod, d policy.Direction) bool {
	s := m.subjects[p]
	return s != nil && s.policies[d].empty()
}

// Itself reports whether an address is one of the pod's own.
func (m *Meaning) Itself(p selector.Pod, a netip.Addr) bool {
	return m.c.pods.has(m.c.pods.find(p), a)
}

// View says what policies see of an address.
func (m *Meaning) View(a netip.Addr) View {
	v, ok := m.addresses[a]
	if !ok {
		v = m.look(a)
		m.addresses[a] = v
	}
	return v
}

func (m *Meaning) look(a netip.Addr) View {
	out := view{peers: make([]byte, (len(m.peers)+7)/8)}
	at := &otherEnd{address: a}
	for _, i := range m.blocks {
		if p := &m.peers[i]; m.c.matchesPeer(&p.Peer, at, p.deny) {
			out.peers[i/8] |= 1 << (i % 8)
		}
	}
	text := ""
	if rec := m.c.pods.peer(a); rec != nil {
		for i, b := range m.selectors(rec) {
			out.peers[i] |= b
		}
		out.pod = rec
		if rec.Ports != (policy.PodPorts{}) {
			text = fmt.Sprint(rec.Ports, m.c.namespace(rec.ID.Namespace).Known)
		}
	}
	key := string(out.peers) + text
	v, ok := m.views[key]
	if !ok {
		v = View(len(m.known))
		m.views[key] = v
		m.known = append(m.known, out)
	}
	return v
}

// selectors says, bit for bit, which selectors pick a pod. Pods of a namespace whose labels differ
// in nothing that anybody asks for are picked alike.
func (m *Meaning) selectors(rec *podRecord) []byte {
	var text strings.Builder
	text.WriteString(rec.ID.Namespace)
	for _, k := range slices.Sorted(maps.Keys(m.keys)) {
		if value, ok := rec.Labels.Get(k); ok {
			fmt.Fprintf(&text, "\x00%s=%s", k, value)
		}
	}
	if out, ok := m.byLabels[text.String()]; ok {
		return out
	}
	out := make([]byte, (len(m.peers)+7)/8)
	at := &otherEnd{pod: rec}
	for i := range m.peers {
		if p := &m.peers[i]; p.Selector != nil && m.c.matchesPeer(&p.Peer, at, p.deny) {
			out[i/8] |= 1 << (i % 8)
		}
	}
	m.byLabels[text.String()] = out
	return out
}

// Allowed says what the policies of one of this node's pods allow to or from an address: of new
// connections, whatever the other end's policies say. What a node may always do is not in it.
func (m *Meaning) Allowed(p selector.Pod, d policy.Direction, peer netip.Addr) Traffic {
	s := m.subjects[p]
	if s == nil {
		return Traffic{}
	}
	if s.policies[d].empty() || m.Itself(p, peer) {
		return All()
	}
	key := allowedKey{s.profile[d], d, m.View(peer)}
	out, ok := m.allowed[key]
	if !ok {
		out = m.allow(s, d, &m.known[key.view])
		m.allowed[key] = out
	}
	return out
}

func (m *Meaning) allow(s *subject, d policy.Direction, v *view) Traffic {
	o := m.c.otherEndOf(s.pod, d, v.pod)
	return s.policies[d].allowedOf(d, func(r *policy.Rule) Traffic { return m.matched(r, o, v) })
}

// matched is what a rule matches of the traffic with an address.
func (m *Meaning) matched(r *policy.Rule, o *otherEnd, v *view) Traffic {
	matched, names := false, false
	for peer := range anyOf(r) {
		if peer == nil ||
			v.has(m.numbers[(&rulePeer{*peer, r.Verdict == policy.Deny}).text()]) {
			matched = true
			names = names || o.namesCount(peer)
		}
	}
	switch {
	case !matched:
		return Traffic{}
	case r.AnyPort:
		return All()
	}
	return Traffic{Ports: selector.MergePorts(slices.Collect(portsOf(r, o, names)))}
}

// Addresses lists the addresses at which what policies mean may change: ends of blocks, and
// whatever belongs to pods and nodes. Of two neighbours in it, whatever is between them is treated
// alike.
func (m *Meaning) Addresses() []netip.Addr {
	var out []netip.Addr
	for a := range m.c.pods.claims.addresses() {
		out = append(out, a)
	}
	for _, n := range m.c.nodes.standing.nodes {
		out = append(out, n.Addresses...)
		out = append(out, n.TunnelAddresses()...)
	}
	for _, i := range m.blocks {
		b := m.peers[i].Block
		for _, p := range append([]netip.Prefix{b.CIDR}, b.Except...) {
			out = append(out, p.Masked().Addr(), netipx.PrefixLastIP(p))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// Why says for people what a pod's policies say of a flow.
func (m *Meaning) Why(p selector.Pod, d policy.Direction, f policy.Flow) string {
	s := m.subjects[p]
	if s == nil {
		return fmt.Sprintf("%s of %s/%s: the pod isn't known", d, p.Namespace, p.Name)
	}
	_, peer := f.Ends(d)
	if why := m.c.exempt(s.pod, d, peer, func(netip.Addr) bool { return false }); why != "" {
		return fmt.Sprintf("%s of %s/%s: allowed, %s", d, p.Namespace, p.Name, why)
	}
	return m.c.decide(s.pod, d, f).String()
}
