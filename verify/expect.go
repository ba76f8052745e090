package verify

import (
	"net/netip"
	"strings"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/verify/kernel"
)

// Protocols that are treated separately.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58
)

// A link is a pod's address behind its own veth.
type link struct {
	address netip.Addr
	veth    string
}

// expectations are the verdicts that packets should get.
type expectations struct {
	node    *Node
	meaning *cluster.Meaning
	// links are the addresses behind our veths, alone those of pods that others wired, and with
	// IPVS of all pods. A pod in neither isn't programmed.
	links map[link]*cluster.Attachment
	alone map[netip.Addr]*cluster.Attachment
	// own are, for each of these places of a pod (no veth: alone), the addresses by which the pod
	// may be an end of a connection.
	own map[link]map[netip.Addr]bool
}

func newExpectations(n *Node, m *cluster.Meaning) *expectations {
	x := &expectations{node: n, meaning: m, links: map[link]*cluster.Attachment{},
		alone: map[netip.Addr]*cluster.Attachment{}, own: map[link]map[netip.Addr]bool{}}
	list := m.Attachments()
	for i := range list {
		if !list[i].Known {
			continue
		}
		for _, a := range list[i].Addresses {
			if list[i].Interface != "" {
				x.links[link{a, list[i].Interface}] = &list[i]
				x.addOwn(link{a, list[i].Interface}, list[i].Addresses)
			}
			if list[i].Interface == "" || n.IPVS {
				x.alone[a] = &list[i]
				x.addOwn(link{address: a}, list[i].Addresses)
			}
		}
	}
	return x
}

func (x *expectations) addOwn(at link, ends []netip.Addr) {
	if x.own[at] == nil {
		x.own[at] = map[netip.Addr]bool{}
	}
	for _, end := range ends {
		x.own[at][end] = true
	}
}

// progress is a class on its way through the stages of judgement.
type progress struct {
	kernel.Outcome
	open kernel.Region // not decided yet
	// this chain has passed it already: it goes on to the next one
	passed kernel.Region
	// by is what decided, for people; the last call counts.
	by []decision
}

type decision struct {
	region kernel.Region
	by     string
}

func (p *progress) pass(r kernel.Region, by string) {
	r = r.And(p.open)
	p.note(r, by)
	p.passed, p.open = p.passed.Or(r), p.open.Minus(r)
}

func (p *progress) drop(r kernel.Region, by string) {
	r = r.And(p.open)
	p.note(r, by)
	p.Drop, p.open = p.Drop.Or(r), p.open.Minus(r)
}

func (p *progress) reset(r kernel.Region, by string) {
	r = r.And(p.open)
	p.note(r, by)
	p.Reset, p.open = p.Reset.Or(r), p.open.Minus(r)
}

func (p *progress) note(r kernel.Region, by string) {
	if !r.Empty() {
		p.by = append(p.by, decision{r, by})
	}
}

// next begins the next stage: what wasn't dropped is judged again.
func (p *progress) next() {
	p.open, p.passed = p.open.Or(p.passed), nil
}

// why says what decided about a point.
func (p *progress) why(at kernel.Region) string {
	out := "nothing forbids it"
	for _, d := range p.by {
		if !at.Empty() &&
			d.region.Contains(kernel.Region{{First: at[0].First, Last: at[0].First}}) {
			out = d.by
		}
	}
	return out
}

// expect returns the verdict that a class should get at a hook.
func (x *expectations) expect(hook kernel.Hook, c *kernel.Class) *progress {
	p := &progress{open: c.Region()}
	switch hook {
	case kernel.Prerouting:
		x.prerouting(c, p)
	case kernel.Forward:
		x.forward(c, p)
	case kernel.Input:
		x.input(c, p)
	case kernel.Output:
		x.output(c, p)
	case kernel.Postrouting: // nothing is judged there
	}
	p.Pass = p.open.Or(p.passed)
	return p
}

func isVeth(name string) bool { return strings.HasPrefix(name, vethPrefix) }

// prerouting: no one sends from an address of another.
func (x *expectations) prerouting(c *kernel.Class, p *progress) {
	if len(x.node.Pods) == 0 {
		return
	}
	all := c.Region()
	if isVeth(c.In) {
		switch {
		case !c.RouteBack:
			p.drop(all, "a pod, but not its address")
		case linkLocal6.Contains(c.Src):
			p.drop(all, "a pod, but not an address that can be checked")
		case loopback4.Contains(c.Dst):
			p.drop(all, "a pod to the node's loopback")
		}
		return
	}
	if x.fromPeer(c) {
		tunnel := x.toTunnel().And(all)
		p.Untracked = tunnel
		p.pass(tunnel, "the tunnel's packets of a peer")
	}
	if contains(x.node.Pods, c.Src) && !c.RouteBack {
		p.drop(all, "a pod's address, but not from there")
	}
}

// fromPeer: where the tunnel's packets from a peer to this node come from and go to.
func (x *expectations) fromPeer(c *kernel.Class) bool {
	return x.node.Tunnel != "" && x.node.Local.IsValid() && c.Dst == x.node.Local &&
		x.isEndpoint(c.Src)
}

func (x *expectations) isEndpoint(a netip.Addr) bool {
	for _, e := range x.node.Endpoints {
		if e == a && a.Is4() == x.node.Local.Is4() {
			return true
		}
	}
	return false
}

func (x *expectations) toTunnel() kernel.Region {
	return kernel.Ports(protocolUDP, x.node.Port, x.node.Port)
}

// output: no policy judges what the node itself sends. What IPVS sends on for others is.
func (x *expectations) output(c *kernel.Class, p *progress) {
	n := x.node
	if n.Tunnel != "" && n.Local.IsValid() && c.Src == n.Local && x.isEndpoint(c.Dst) {
		p.Untracked = x.toTunnel().And(p.open)
	}
	if n.IPVS {
		x.sentOn(c, p)
	}
}

// forward: egress of the one end, ingress of the other.
func (x *expectations) forward(c *kernel.Class, p *progress) {
	if x.cut(c, p) {
		return
	}
	x.always(c, p, policy.Egress)
	if x.beyondTunnel(c.In) {
		p.pass(p.open, "no pod of this node sent it")
	}
	if x.node.Tunnel != "" && isVeth(c.In) && !contains(x.node.Pods, c.Dst) {
		p.drop(x.toTunnel(), "a pod to a tunnel")
	}
	x.sender(c, p)
	p.next()
	x.always(c, p, policy.Ingress)
	if x.beyondTunnel(c.Out) {
		p.pass(p.open, "no pod of this node will get it")
	}
	x.receiver(c, p)
}

// beyondTunnel: other nodes are behind it, and no pod of this one.
func (x *expectations) beyondTunnel(face string) bool {
	return face != "" && face == x.node.Tunnel
}

// input: what a pod sends to its own node is egress. The tunnel's port is for peers only.
func (x *expectations) input(c *kernel.Class, p *progress) {
	if c.State == kernel.Untracked && x.fromPeer(c) && !isVeth(c.In) {
		p.pass(x.toTunnel(), "the tunnel's packets of a peer")
	}
	if x.cut(c, p) {
		return
	}
	if x.node.Tunnel != "" {
		switch {
		case isVeth(c.In):
			p.drop(x.toTunnel(), "a pod to a tunnel")
		case x.fromPeer(c):
			p.pass(x.toTunnel(), "the tunnel's packets of a peer")
		default:
			p.drop(x.toTunnel(), "tunnel packets of others")
		}
	}
	x.always(c, p, policy.Egress)
	if c.In == loopback {
		p.pass(p.open, "the node to itself")
	}
	x.sender(c, p)
}

// cut: connections that policies deny now end.
func (x *expectations) cut(c *kernel.Class, p *progress) bool {
	if c.Label != kernel.LabelWith(x.node.CutLabel) {
		return false
	}
	p.reset(kernel.Protocol(protocolTCP), "the connection is cut")
	p.drop(p.open, "the connection is cut")
	return true
}

// always is what passes under any policies: packets of connections that were allowed, errors about
// them, neighbour discovery.
func (x *expectations) always(c *kernel.Class, p *progress, d policy.Direction) {
	const firstND, lastND, ndHops = 133, 137, 255
	switch c.State {
	case kernel.Established:
		p.pass(p.open, "packets of allowed connections pass")
	case kernel.Related:
		if x.byEnd(c) || d == policy.Ingress && !x.fromPod(c) {
			p.pass(kernel.Protocol(protocolICMP).Or(kernel.Protocol(protocolICMPv6)),
				"errors about allowed connections pass")
		}
	default:
	}
	if c.Type >= firstND && c.Type <= lastND && c.Hops == ndHops && !c.Src.Is4() {
		p.pass(kernel.Protocol(protocolICMPv6), "neighbour discovery passes")
	}
}

// senderAt is where a packet's sender is, if it is a pod.
func senderAt(c *kernel.Class) link {
	if isVeth(c.In) {
		return link{c.Src, c.In}
	}
	return link{address: c.Src}
}

// fromPod: a pod of this node sends, whether or not it is programmed.
func (x *expectations) fromPod(c *kernel.Class) bool {
	return isVeth(c.In) || x.alone[c.Src] != nil
}

// byEnd: the sender is a pod of this node, and an end of the connection.
func (x *expectations) byEnd(c *kernel.Class) bool {
	own := x.own[senderAt(c)]
	return own[c.OrigSrc] || own[c.ReplySrc]
}

const notProgrammed = "what belongs to no pod that is programmed carries nothing"

func (x *expectations) sender(c *kernel.Class, p *progress) {
	at := x.alone[c.Src]
	if isVeth(c.In) {
		at = x.links[link{c.Src, c.In}]
	}
	switch {
	case at != nil:
		x.judge(at, policy.Egress, c, p)
	case isVeth(c.In) || contains(x.node.PodRanges, c.Src):
		p.drop(p.open, notProgrammed)
	case len(x.node.PodRanges) > 0 && linkLocal6.Contains(c.Src) && c.In != "" && c.Out != "":
		p.drop(p.open, "on a bridge, from no known pod") // to the node itself: it is no other's
	}
}

// receiverOf is the pod of this node to which a packet goes. What goes out, from wherever IPVS had
// it, is known by its address alone.
func (x *expectations) receiverOf(c *kernel.Class) *cluster.Attachment {
	if isVeth(c.Out) && c.In != "" {
		return x.links[link{c.Dst, c.Out}]
	}
	return x.alone[c.Dst]
}

func (x *expectations) receiver(c *kernel.Class, p *progress) {
	at := x.receiverOf(c)
	switch {
	case at != nil:
		x.judge(at, policy.Ingress, c, p)
	case isVeth(c.Out) || contains(x.node.PodRanges, c.Dst):
		p.drop(p.open, notProgrammed)
	case len(x.node.PodRanges) > 0 && c.In != "" &&
		(multicast4.Contains(c.Dst) || c.Dst == broadcast4 || multicast6.Contains(c.Dst) ||
			linkLocal6.Contains(c.Dst)):
		p.drop(p.open, "on a bridge, to no known pod")
	}
}

// judge asks the policies of one pod.
func (x *expectations) judge(at *cluster.Attachment, d policy.Direction, c *kernel.Class,
	p *progress) {
	peer := c.Src
	if d == policy.Egress {
		peer = c.Dst
	}
	switch {
	case x.meaning.Open(at.Pod, d):
		p.pass(p.open, "no policy isolates the pod")
		return
	case x.meaning.Itself(at.Pod, peer):
		p.pass(p.open, "the pod itself")
		return
	case d == policy.Egress && x.node.AllowPodToNode && c.DstLocal:
		p.pass(p.open, "pods may reach their own node")
		return
	case c.State == kernel.Invalid:
		p.drop(p.open, "connection tracking can't place it, and the pod is isolated")
		return
	}
	p.pass(regionOf(x.meaning.Allowed(at.Pod, d, peer)), "") // the policies give the reason
	if c.NoSYN {
		p.reset(kernel.Protocol(protocolTCP), "")
	}
	p.drop(p.open, "")
}

func regionOf(t cluster.Traffic) kernel.Region {
	if t.IsAll() {
		return kernel.Everything()
	}
	spans := make([]kernel.Span, len(t.Ports))
	for i, r := range t.Ports {
		spans[i] = kernel.Ports(r.Protocol, r.First, r.Last)[0]
	}
	out := kernel.Union(spans)
	if t.Others {
		others := kernel.Everything()
		for _, r := range cluster.All().Ports {
			others = others.Minus(kernel.Protocol(r.Protocol))
		}
		out = out.Or(others)
	}
	return out
}
