package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Node returns a node by its name, or nil.
func (l *Lab) Node(name string) *Node {
	for _, node := range l.Nodes() {
		if node.name == name {
			return node
		}
	}
	return nil
}

// Nodes returns all nodes, by number.
func (l *Lab) Nodes() []*Node {
	l.nodesMu.Lock()
	defer l.nodesMu.Unlock()
	return slices.Clone(l.nodes)
}

// AddNode adds a node, with the number after the highest there ever was, and returns when it is
// ready.
func (l *Lab) AddNode(ctx context.Context) (*Node, error) {
	l.changing.Lock()
	defer l.changing.Unlock()
	node, err := l.makeNode()
	if err == nil {
		err = node.join(ctx)
	}
	if err == nil {
		err = node.WaitReady(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("adding a node: %w", err)
	}
	return node, nil
}

// makeNode makes a node's machine and switches it on. Nothing runs on it, and the cluster doesn't
// know it. A node that couldn't be made as a whole is the lab's all the same, which removes what
// there is of it.
func (l *Lab) makeNode() (*Node, error) {
	l.numbers++
	if l.numbers > maxNodes {
		return nil, fmt.Errorf("%d nodes: expected at most %d", l.numbers, maxNodes)
	}
	state := l.plan.node(l.numbers)
	if err := l.setState(state); err != nil {
		return nil, err
	}
	node, err := l.newNode(state)
	if err != nil {
		return nil, err
	}
	l.nodesMu.Lock()
	l.nodes = append(l.nodes, node)
	l.nodesMu.Unlock()
	if err := node.powerOn(); err != nil {
		return nil, err
	}
	if err := l.routePods(state); err != nil {
		return nil, err
	}
	if !l.options.NoAgent {
		return node, nil
	}
	for _, other := range l.nodeStates() { // to which the new one needs routes
		if err := l.routePods(other); err != nil {
			return nil, err
		}
	}
	return node, nil
}

// join makes the node's object, and starts what runs on it.
func (n *Node) join(ctx context.Context) error {
	if err := n.lab.register(ctx,
		n.lab.nodeState(n.name).object(readyCondition(n.kubelet.Problem()))); err != nil {
		return err
	}
	if err := n.kubelet.Start(ctx); err != nil {
		return err
	}
	if n.lab.options.NoAgent {
		return nil
	}
	return n.StartAgent()
}

// WaitReady waits until the node's agent is ready, and its network as a container runtime sees it.
func (n *Node) WaitReady(ctx context.Context) error {
	if !n.lab.options.NoAgent {
		if err := n.WaitAgentReady(ctx); err != nil {
			return err
		}
	}
	return n.kubelet.WaitNetwork(ctx)
}

// RemoveNode switches a node off for ever and removes its object and those of its pods.
func (l *Lab) RemoveNode(ctx context.Context, name string) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	node := l.Node(name)
	if node == nil {
		return fmt.Errorf("removing node %s: there is none", name)
	}
	node.kubelet.End()
	err := errors.Join(node.powerOff(), l.unroutePods(l.nodeState(name)))
	l.nodesMu.Lock()
	l.nodes = slices.DeleteFunc(l.nodes, func(n *Node) bool { return n == node })
	l.nodesMu.Unlock()
	err = errors.Join(err, l.changeStates(func(states []nodeState) []nodeState {
		return slices.DeleteFunc(states, func(s nodeState) bool { return s.Name == name })
	}))
	object := &corev1.Node{}
	object.Name = name
	return errors.Join(err, client.IgnoreNotFound(l.client.Delete(ctx, object)),
		l.deletePodsOf(ctx, name), os.RemoveAll(node.dir))
}

// deletePodsOf does the work of the pod garbage collector on the pods of a node that is gone.
func (l *Lab) deletePodsOf(ctx context.Context, node string) error {
	var pods corev1.PodList
	if err := l.client.List(ctx, &pods); err != nil {
		return fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	var errs []error
	for _, pod := range pods.Items {
		if pod.Spec.NodeName == node {
			errs = append(errs,
				client.IgnoreNotFound(l.client.Delete(ctx, &pod, client.GracePeriodSeconds(0))))
		}
	}
	return errors.Join(errs...)
}

// SetAddress gives the node another address on the underlay in the place of that of the same
// family: first on its link, where the old one goes before, and with it the routes that need it,
// then in its object. Expects an address on the node's subnet.
func (n *Node) SetAddress(ctx context.Context, addr netip.Addr) error {
	state := n.lab.nodeState(n.name)
	old := sameFamily(state.Addrs, addr)
	if !old.IsValid() || onUnderlay(old).Masked() != onUnderlay(addr).Masked() {
		return fmt.Errorf("changing the address of %s to %s: expected one on the subnet of %v",
			n.name, addr, state.Addrs)
	}
	err := n.Do(func() error {
		uplink, err := netlinksafe.LinkByName(uplinkName)
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrDel(uplink, underlayAddr(old)),
			netlink.AddrAdd(uplink, underlayAddr(addr)))
	})
	if err == nil {
		err = n.routeToRouter()
	}
	if err != nil {
		return fmt.Errorf("changing the address of %s to %s: %w", n.name, addr, err)
	}
	state.Addrs = slices.Clone(state.Addrs)
	state.Addrs[slices.Index(state.Addrs, old)] = addr
	if err := errors.Join(n.lab.setState(state), n.lab.routePods(state)); err != nil {
		return err
	}
	return n.lab.patchNodeStatus(ctx, n.name, types.MergePatchType,
		map[string]any{"addresses": state.addresses()})
}

// SetPodCIDRs gives the node other ranges for its pods, or none. The API allows that once, for a
// node without any; otherwise the node's object is deleted and made anew, as an administrator would
// do it. Pods that run stay as they are.
func (n *Node) SetPodCIDRs(ctx context.Context, cidrs ...netip.Prefix) error {
	state := n.lab.nodeState(n.name)
	if err := n.lab.unroutePods(state); err != nil {
		return err
	}
	had := len(state.PodCIDRs) > 0
	state.PodCIDRs = slices.Clone(cidrs)
	if err := errors.Join(n.lab.setState(state), n.lab.routePods(state)); err != nil {
		return err
	}
	object := state.object(readyCondition(n.kubelet.Problem()))
	if !had {
		spec := map[string]any{"podCIDR": object.Spec.PodCIDR, "podCIDRs": object.Spec.PodCIDRs}
		return n.lab.patchNode(ctx, n.name, types.MergePatchType, map[string]any{"spec": spec})
	}
	if err := n.lab.client.Delete(ctx, object.DeepCopy()); err != nil {
		return fmt.Errorf("deleting node %s: %w", n.name, err)
	}
	return n.lab.register(ctx, object)
}

// setState replaces what is known of a node, or adds it.
func (l *Lab) setState(state nodeState) error {
	return l.changeStates(func(states []nodeState) []nodeState {
		for i := range states {
			if states[i].Name == state.Name {
				states[i] = state
				return states
			}
		}
		return append(states, state)
	})
}

// changeStates changes what is known of nodes, here and for other processes.
func (l *Lab) changeStates(change func([]nodeState) []nodeState) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = change(slices.Clone(l.states))
	l.state.Nodes = l.states
	return l.state.write()
}

// objectsAtOnce is how many nodes CreateNodeObjects makes at the same time.
const objectsAtOnce = 16

// CreateNodeObjects creates n nodes that exist as objects only, with addresses and pod ranges where
// nobody is, and returns their names.
func (l *Lab) CreateNodeObjects(ctx context.Context, n int) ([]string, error) {
	l.nodesMu.Lock()
	first := l.ghosts + 1
	l.ghosts += n
	l.nodesMu.Unlock()
	if first+n-1 > maxGhosts {
		return nil,
			fmt.Errorf("%d nodes that are objects only: expected at most %d", first+n-1, maxGhosts)
	}
	var names []string
	creating, ctx := errgroup.WithContext(ctx)
	creating.SetLimit(objectsAtOnce)
	for number := first; number < first+n; number++ {
		state := l.plan.ghost(number)
		names = append(names, state.Name)
		creating.Go(func() error { return l.register(ctx, state.object(readyCondition(""))) })
	}
	return names, creating.Wait()
}

// DeleteNodeObjects deletes such nodes. One that isn't there is no error.
func (l *Lab) DeleteNodeObjects(ctx context.Context, names ...string) error {
	deleting, ctx := errgroup.WithContext(ctx)
	deleting.SetLimit(objectsAtOnce)
	for _, name := range names {
		deleting.Go(func() error {
			node := &corev1.Node{}
			node.Name = name
			if err := l.client.Delete(ctx, node); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("deleting node %s: %w", name, err)
			}
			return nil
		})
	}
	return deleting.Wait()
}
