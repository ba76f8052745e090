package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/internal/fair"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
)

// ToNodes says when pods reach nodes with the node's address instead of their own.
type ToNodes string

// The ways to masquerade to nodes. MasqueradeAuto masquerades to nodes that may have no way back to
// a pod outside the tunnel.
const (
	MasqueradeAuto   ToNodes = "auto"
	MasqueradeAlways ToNodes = "always"
	MasqueradeNever  ToNodes = "never"
)

// NetworkOptions say how the pod network is made. All but Underlay, and the functions, are
// required.
type NetworkOptions struct {
	Node       string // this node's name
	ConfigFile string // flannel's net-conf.json
	SavedFile  string // where the last good configuration is kept
	Underlay   overlay.Family
	Masquerade bool // what leaves the pod network
	ToNodes    ToNodes
	Overlay    overlay.Options
	Events     notify.NodeEvents
	Metrics    *Metrics // may be nil
	Log        logr.Logger

	// OnRules gets what the ruleset has to know, at each change.
	OnRules func(ruleset.Network)
	// OnState gets the outcome of the last pass, at each change.
	OnState func(NetworkState)
}

// NetworkState is the pod network of a node as it is.
type NetworkState struct {
	Config   overlay.Config
	PodCIDRs []netip.Prefix // this node's, of the families that are on
	overlay.Status
}

// PodNetwork keeps the network between nodes as the Node objects and the configuration say, and
// passes its state on to the other parts of the agent. Its methods may be called from several
// goroutines.
type PodNetwork struct {
	options NetworkOptions
	overlay *overlay.Reconciler
	conf    netConf
	wake    chan struct{} // holds a token while there may be something to do

	mu    sync.Mutex
	nodes map[string]overlay.Node
	// unreadable has the reported errors about nodes' annotations.
	unreadable map[string]string

	listed  bool // nodes is complete
	status  overlay.Status
	stated  bool // status is of a pass
	settled chan struct{}
	// everReady is true once the network has been ready; until then why says what it waits for.
	everReady bool
	why       string

	lines fair.Log // about what other nodes cause

	// Of Run's goroutine.
	lastRules       ruleset.Network
	lastState       NetworkState
	lastError       error
	skips           skips
	reportedFilters map[string]string
	reportedLinks   []string // that don't forward
}

// NewPodNetwork returns a PodNetwork that does nothing before Run.
func NewPodNetwork(o NetworkOptions) *PodNetwork {
	n := &PodNetwork{
		options: o, wake: make(chan struct{}, 1), nodes: map[string]overlay.Node{},
		unreadable: map[string]string{}, settled: make(chan struct{}), skips: skips{},
		conf: netConf{path: o.ConfigFile, saved: &keeper{path: o.SavedFile, log: o.Log}},
	}
	o.Overlay.OnStatus = func(s overlay.Status) {
		n.mu.Lock()
		n.status, n.stated = s, true
		n.mu.Unlock()
		n.signal()
	}
	n.overlay = overlay.New(o.Overlay)
	return n
}

// SetNode adds or updates a node.
func (n *PodNetwork) SetNode(node *corev1.Node) {
	next, err := OverlayNode(node)
	n.mu.Lock()
	same := reflect.DeepEqual(n.nodes[node.Name], next)
	n.nodes[node.Name] = next
	news := n.noteUnreadable(node.Name, err)
	n.mu.Unlock()
	if !same {
		n.signal()
	}
	if news {
		n.lines.Info(n.options.Log, node.Name, "An annotation of a node can't be read", "of",
			node.Name, "reason", err.Error())
		if node.Name == n.options.Node {
			n.options.Events.Warn("InvalidAnnotation", err.Error())
		}
	}
}

// noteUnreadable reports whether an error about a node is new. A node with an unreadable annotation
// counts as one without. The caller holds mu.
func (n *PodNetwork) noteUnreadable(name string, err error) (news bool) {
	if err == nil {
		delete(n.unreadable, name)
		return false
	}
	news = n.unreadable[name] != err.Error()
	n.unreadable[name] = err.Error()
	return news
}

// DeleteNode forgets a node.
func (n *PodNetwork) DeleteNode(name string) {
	n.mu.Lock()
	delete(n.nodes, name)
	delete(n.unreadable, name)
	n.mu.Unlock()
	n.signal()
}

// Listed says that every existing node is set. Nothing is done before: a node that isn't set counts
// as gone.
func (n *PodNetwork) Listed() {
	n.mu.Lock()
	n.listed = true
	n.mu.Unlock()
	n.signal()
}

// awaitSettled waits until the first pass is done, successful or not, and its rules are passed on.
func (n *PodNetwork) awaitSettled(ctx context.Context) error {
	select {
	case <-n.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ready is nil once the network has been as it should be; it is a health check.
func (n *PodNetwork) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.everReady {
		return nil
	}
	return fmt.Errorf("the pod network isn't ready yet: %s", n.why)
}

func (n *PodNetwork) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run keeps the network until ctx ends, and leaves it as it is.
func (n *PodNetwork) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const lookAnyway = 10 * time.Second
	failed := make(chan error, 2)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { failed <- watchFile(ctx, n.options.ConfigFile, lookAnyway, n.signal) })
	running.Go(func() { failed <- n.overlay.Run(ctx) })
	tick := time.NewTicker(lookAnyway)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if err != nil {
				return err
			}
		case <-n.wake:
			n.pass()
		case <-tick.C:
			n.noteSkipped(time.Now())
		}
	}
}

// pass reads the inputs, hands them to the overlay, and reports the outcome of the overlay's last
// pass.
func (n *PodNetwork) pass() {
	if n.conf.read(); n.conf.err != nil {
		n.report(n.conf.err, "InvalidNetworkConfig")
	}
	n.mu.Lock()
	listed, stated, status := n.listed, n.stated, n.status
	nodes := slices.Collect(maps.Values(n.nodes))
	own := n.nodes[n.options.Node]
	n.mu.Unlock()
	if !listed || n.conf.config == nil {
		return
	}
	config := *n.conf.config
	config.Underlay = n.options.Underlay
	slices.SortFunc(nodes, func(a, b overlay.Node) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	n.overlay.Set(n.options.Node, nodes, config)
	// otherwise the outcome of another configuration would count as this one's
	if !stated || status.Config != config {
		return
	}
	state := NetworkState{Config: config, PodCIDRs: podCIDRsOf(own, config), Status: status}
	if n.conf.err == nil {
		n.report(reasonOf(status), "NetworkNotReady")
	}
	if rules := n.rules(state, nodes); !reflect.DeepEqual(rules, n.lastRules) {
		n.lastRules = rules
		n.options.OnRules(rules)
	}
	if !reflect.DeepEqual(state, n.lastState) {
		n.lastState = state
		n.noteState(state)
		n.options.OnState(state)
	}
	select {
	case <-n.settled:
	default:
		close(n.settled)
	}
}

func reasonOf(s overlay.Status) error {
	if s.Ready {
		return nil
	}
	return errors.New(s.Reason)
}

// report reports a problem once, and its end.
func (n *PodNetwork) report(err error, reason string) {
	last := n.lastError
	n.lastError = err
	n.mu.Lock()
	if err == nil {
		n.everReady = true
	} else {
		n.why = err.Error()
	}
	n.mu.Unlock()
	n.options.Metrics.noteReady(err == nil)
	switch {
	case err == nil && last == nil, err != nil && last != nil && err.Error() == last.Error():
	case err == nil:
		n.options.Log.Info("The pod network is as it should be")
		n.options.Events.Say("NetworkReady", "the pod network is as it should be")
	default:
		n.options.Log.Error(err, "The pod network isn't as it should be", "reason", reason)
		n.options.Events.Warn(reason, err.Error())
	}
}

// noteState reports the state of the network.
func (n *PodNetwork) noteState(s NetworkState) {
	n.options.Metrics.noteNetwork(s.Status)
	if !maps.Equal(s.ReversePathFilters, n.reportedFilters) {
		n.options.Log.Info("Reverse path filters of the node, which are left as they are",
			"rp_filter", s.ReversePathFilters)
	}
	n.reportedFilters = s.ReversePathFilters
	n.noteSkipped(time.Now())
	n.noteLinks(s.NotForwarding)
}

// noteLinks reports which of the node's own links don't forward.
func (n *PodNetwork) noteLinks(off []string) {
	for _, link := range off {
		if !slices.Contains(n.reportedLinks, link) {
			n.options.Events.Warn("LinkNotForwarding",
				fmt.Sprintf("net.ipv4.conf.%s.forwarding is 0: IPv4 packets for pods that come "+
					"in by %s are "+
					"dropped, answers from outside among them. Set it to 1 (systemd-networkd: "+
					"IPv4Forwarding=yes in the link's .network file)",
					strings.ReplaceAll(link, ".", "/"), link))
		}
	}
	if !slices.Equal(off, n.reportedLinks) {
		n.options.Log.Info("Links of the node that don't forward IPv4", "links", off)
	}
	n.reportedLinks = off
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// rules is what the ruleset has to know.
func (n *PodNetwork) rules(s NetworkState, nodes []overlay.Node) ruleset.Network {
	out := ruleset.Network{Pods: networksOf(s.Config), OwnPods: s.PodCIDRs, Own: s.Own,
		Masquerade: n.options.Masquerade}
	// Where the node can't take part, an earlier agent's tunnel may still be up: its port stays
	// closed, then to all.
	if s.Config.Backend == overlay.VXLAN {
		out.Tunnel, out.Port = s.Config.Device(), s.Config.Port
	}
	if s.Tunnel != "" {
		out.Tunnel, out.Port, out.Local = s.Tunnel, s.Config.Port, s.Local
		for _, p := range s.Peers {
			out.Endpoints = append(out.Endpoints, p.Endpoint)
		}
	}
	if n.options.Masquerade {
		out.Direct = directAddresses(n.options.ToNodes, s.Peers, nodes)
	}
	return out
}

// networksOf lists the ranges of all pods.
func networksOf(c overlay.Config) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{c.Network, c.IPv6Network} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// directAddresses lists the addresses of nodes that pods reach with their own address: those of
// peers whose pods too are reached without a tunnel.
func directAddresses(mode ToNodes, peers []overlay.Peer, nodes []overlay.Node) []netip.Addr {
	if mode == MasqueradeAlways {
		return nil
	}
	direct := map[string][]netip.Prefix{}
	for _, p := range peers {
		direct[p.Name] = p.Direct
	}
	var out []netip.Addr
	for _, node := range nodes {
		for _, a := range append(slices.Clone(node.Addresses), node.UnderlayIP) {
			sameFamily := func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() }
			if a.IsValid() &&
				(mode == MasqueradeNever || slices.ContainsFunc(direct[node.Name], sameFamily)) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// podCIDRsOf lists the pod ranges of a node, of the families that are on.
func podCIDRsOf(node overlay.Node, c overlay.Config) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range node.PodCIDRs {
		if p.Addr().Is4() && c.Network.IsValid() || p.Addr().Is6() && c.IPv6Network.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// OverlayNode is what the overlay has to know of a Node. An unreadable annotation counts as none,
// and is an error besides.
func OverlayNode(node *corev1.Node) (overlay.Node, error) {
	out := overlay.Node{
		Name: node.Name, PodCIDRs: podCIDRs(node), Addresses: internalIPs(node),
		Created: node.CreationTimestamp.Time,
	}
	text, has := node.Annotations[policy.UnderlayAnnotation]
	if !has {
		return out, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return out, fmt.Errorf("annotation %s: %.50q: expected an IP address",
			policy.UnderlayAnnotation, text)
	}
	out.UnderlayIP = a.Unmap()
	return out, nil
}
