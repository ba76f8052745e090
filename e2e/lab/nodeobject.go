package lab

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// object is the node as its kubelet would register it.
func (s nodeState) object(ready corev1.NodeCondition) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: s.labels()},
		Status: corev1.NodeStatus{Addresses: s.addresses(),
			Conditions: []corev1.NodeCondition{ready}},
	}
	for _, cidr := range s.PodCIDRs {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, cidr.String())
	}
	if len(node.Spec.PodCIDRs) > 0 {
		node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	}
	return node
}

func (s nodeState) labels() map[string]string {
	return map[string]string{corev1.LabelHostname: s.Name, corev1.LabelOSStable: "linux"}
}

func (s nodeState) addresses() []corev1.NodeAddress {
	addresses := []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: s.Name}}
	for _, addr := range s.Addrs {
		addresses = append(addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: addr.String()})
	}
	return addresses
}

// readyCondition is what a kubelet says of its node. An empty problem is none.
func readyCondition(problem string) corev1.NodeCondition {
	condition := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "LabNode",
		LastTransitionTime: metav1.Now(), LastHeartbeatTime: metav1.Now(),
	}
	if problem != "" {
		condition.Status, condition.Reason, condition.Message = corev1.ConditionFalse,
			"NetworkNotReady", problem
	}
	return condition
}

// register creates a node's object. The API server drops the status of a new one, so it follows.
func (v *View) register(ctx context.Context, node *corev1.Node) error {
	status := map[string]any{"addresses": node.Status.Addresses,
		"conditions": node.Status.Conditions}
	if err := v.client.Create(ctx, node); err != nil {
		return fmt.Errorf("creating node %s: %w", node.Name, err)
	}
	// not-ready, which admission adds to a new node
	taints := map[string]any{"spec": map[string]any{"taints": nil}}
	if err := v.patchNode(ctx, node.Name, types.MergePatchType, taints); err != nil {
		return err
	}
	return v.patchNodeStatus(ctx, node.Name, types.MergePatchType, status)
}

func (v *View) patchNode(ctx context.Context, name string, kind types.PatchType,
	change map[string]any) error {
	patch, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("writing node %s: %w", name, err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := v.client.Patch(ctx, node, client.RawPatch(kind, patch)); err != nil {
		return fmt.Errorf("updating node %s: %w", name, err)
	}
	return nil
}

// patchNodeStatus changes a node's status. A strategic patch merges conditions by type; addresses
// must go by a merge patch, which replaces them: two of one type are one to the other kind.
func (v *View) patchNodeStatus(ctx context.Context, name string, kind types.PatchType,
	status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return fmt.Errorf("writing the status of node %s: %w", name, err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := v.client.Status().Patch(ctx, node, client.RawPatch(kind, patch)); err != nil {
		return fmt.Errorf("updating the status of node %s: %w", name, err)
	}
	return nil
}
