package controllers

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestStripKeepsWhatPolicyReads(t *testing.T) {
	t.Parallel()
	node, _ := strip(cases.Node())
	if diff := cmp.Diff(policy.NodeFrom(cases.Node()), policy.NodeFrom(node.(*corev1.Node)),
		comparers); diff != "" {
		t.Error(diff)
	}
	np, err := cases.RenderPolicy("dev/p", `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`,
		cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	stripped, _ := strip(np)
	if diff := cmp.Diff(policy.Parse(np), policy.Parse(stripped.(*networkingv1.NetworkPolicy)),
		comparers); diff != "" {
		t.Error(diff)
	}
}
