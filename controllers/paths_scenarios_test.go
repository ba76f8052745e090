package controllers

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cases"
)

// scenario is a piece of a cluster's life: what is there, and what happens.
type scenario struct {
	name           string
	before, events []event
	// remembers: the end state isn't all that counts. A pod whose object is gone keeps the policy
	// that it had, which only who saw it can know.
	remembers bool
}

// trait changes a pod.
type trait func(*corev1.Pod)

// born makes a pod that runs on this node, and is the older the smaller age is.
func born(namespace, name, uid string, age int, traits ...trait) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(uid),
			Labels:            map[string]string{"app": name},
			CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000+int64(age), 0)),
		},
		Spec: corev1.PodSpec{NodeName: ownNode, Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, s := range traits {
		s(pod)
	}
	return pod
}

func at(addresses ...string) trait {
	return func(p *corev1.Pod) {
		p.Status.PodIPs = nil
		for _, a := range addresses {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
		}
	}
}

func on(node string) trait               { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
func in(phase corev1.PodPhase) trait     { return func(p *corev1.Pod) { p.Status.Phase = phase } }
func labelled(l map[string]string) trait { return func(p *corev1.Pod) { p.Labels = l } }
func serving(name string, n int32) trait {
	return func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{
			{Ports: []corev1.ContainerPort{{Name: name, ContainerPort: n}}}}
	}
}
func ending(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1_800_000_000, 0)} }

// with returns a changed copy of a pod.
func with(pod *corev1.Pod, traits ...trait) *corev1.Pod {
	out := pod.DeepCopy()
	for _, s := range traits {
		s(out)
	}
	return out
}

// wired is the attachment of a pod that has addresses.
func wired(pod *corev1.Pod, ports ...cni.HostPort) cni.Attachment {
	out := cni.Attachment{
		ContainerID: "c-" + string(pod.UID), IfName: "eth0", PodNamespace: pod.Namespace,
		PodName: pod.Name, PodUID: string(pod.UID),
		Interface: fmt.Sprintf("slup%.11x", sha256.Sum256([]byte(pod.UID))), HostPorts: ports,
	}
	for _, ip := range pod.Status.PodIPs {
		out.Addresses = append(out.Addresses, netip.MustParseAddr(ip.IP))
	}
	return out
}

func space(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func machine(name, address string, cidrs ...string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: cidrs},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}},
	}
}

func rules(t *testing.T, key, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	np, err := cases.RenderPolicy(key, spec, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return np
}

// tier is a ClusterNetworkPolicy.
func tier(t *testing.T, name, spec string) event {
	t.Helper()
	cnp, err := cases.RenderClusterPolicy(name, spec, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return has(cnp)
}

// scenarios are named after what happens.
func scenarios(t *testing.T) []scenario {
	t.Helper()
	web := born("dev", "web", "w1", 1, at("10.244.1.10", "fd00:10:244:1::10"))
	db := born("dev", "db", "d1", 2, at("10.244.1.11", "fd00:10:244:1::11"))
	far := born("prod", "far", "f1", 3, at("10.244.2.10"), on("n2"))
	here := machine(ownNode, "198.51.100.1", "10.244.1.0/24", "fd00:10:244:1::/64")
	there := machine("n2", "198.51.100.2", "10.244.2.0/24")
	dev, prod := space("dev", map[string]string{"env": "dev"}),
		space("prod", map[string]string{"env": "prod"})
	p := func(spec string) event { return has(rules(t, "dev/p", spec)) }
	fromWeb :=
		p(`{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}]}`)
	fromProd := p(
		`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {env: prod}}}]}]}`)
	fromNodes :=
		p(`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.3/32]}}]}]}`)
	denyAll := has(rules(t, "dev/deny", `{podSelector: {}, policyTypes: [Ingress, Egress]}`))
	guard := tier(t, "guard", `{tier: Admin, priority: 3, subject: {pods: {podSelector: {matchLabels: {app: db}}}},
		ingress: [{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: web}}}}]}]}`)
	pass := tier(t, "pass", `{tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {env: dev}}},
		ingress: [{action: Pass, from: [{namespaces: {matchLabels: {env: prod}}}]}]}`)
	base := []event{has(here), has(there), has(dev), has(prod), has(far), has(web),
		attach(wired(web)), has(db), attach(wired(db))}
	and := func(more ...event) []event { return append(slices.Clip(base), more...) }
	port80 := cni.HostPort{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}
	port81 := cni.HostPort{HostPort: 8081, ContainerPort: 80, Protocol: "tcp"}

	podLife := []scenario{
		{name: "a pod starts", before: and(fromWeb, denyAll), events: []event{
			has(born("dev", "new", "n1", 9, in(corev1.PodPending), on(""))),
			has(born("dev", "new", "n1", 9, in(corev1.PodPending))),
			attach(wired(born("dev", "new", "n1", 9, at("10.244.1.12")))),
			has(born("dev", "new", "n1", 9, at("10.244.1.12"))),
		}},
		{name: "a Deployment rolls", before: and(fromWeb), events: []event{
			has(born("dev", "db-2", "d2", 9, labelled(db.Labels), at("10.244.1.12"))),
			attach(wired(born("dev", "db-2", "d2", 9, at("10.244.1.12")))),
			has(with(db, ending)), detach(wired(db)), gone(db),
		}},
		{name: "a pod of a StatefulSet starts again here, with its address",
			before: and(fromWeb, denyAll), events: []event{
				has(with(db, ending)), detach(wired(db)), gone(db),
				has(born("dev", "db", "d2", 9, at("10.244.1.11"))),
				attach(wired(born("dev", "db", "d2", 9, at("10.244.1.11")))),
			}},
		{name: "a pod of a StatefulSet moves to another node", before: and(fromWeb, denyAll),
			events: []event{
				has(with(db, ending)), detach(wired(db)), gone(db),
				has(born("dev", "db", "d2", 9, at("10.244.2.11"), on("n2"))),
			}},
		{name: "a pod moves away, another gets its address", before: and(fromWeb, denyAll),
			events: []event{
				detach(wired(db)), has(born("dev", "db", "d2", 9, at("10.244.2.11"), on("n2"))),
				has(born("dev", "late", "l1", 10, at("10.244.1.11"))),
				attach(wired(born("dev", "late", "l1", 10, at("10.244.1.11")))),
			}},
		{name: "a job ends", before: and(fromWeb),
			events: []event{has(with(web, in(corev1.PodSucceeded))), detach(wired(web)),
				gone(web)}},
		{name: "a job ended, its address is another's", before: and(fromWeb), events: []event{
			has(with(web, in(corev1.PodSucceeded))), detach(wired(web)),
			has(born("dev", "next", "x1", 9, at("10.244.1.10"), labelled(db.Labels))),
			attach(wired(born("dev", "next", "x1", 9, at("10.244.1.10")))),
		}},
		{name: "a pod is force-deleted and stays attached", before: and(fromWeb, denyAll),
			events: []event{gone(db)}, remembers: true},
		{name: "a pod is relabelled", before: and(fromWeb, denyAll), events: []event{
			has(with(web, labelled(map[string]string{"app": "none"}))),
			has(with(db, labelled(nil))), has(with(far, labelled(web.Labels))),
			has(with(web, labelled(db.Labels))),
		}},
		{name: "a named port changes its number", before: and(fromWeb),
			events: []event{has(with(db, serving("http", 8080))),
				has(with(db, serving("other", 81)))}},
		{name: "host ports move", before: and(attach(wired(web, port80))), events: []event{
			detach(wired(web)), gone(web), attach(wired(db, port80)), attach(wired(db, port81)),
		}},
	}
	return append(podLife, []scenario{
		{name: "a namespace is relabelled", before: and(fromProd), events: []event{
			has(space("prod", nil)), has(space("dev", map[string]string{"env": "prod"})),
			has(space("prod", map[string]string{"env": "x"})),
		}},
		{name: "a namespace goes with all that is in it", before: and(fromWeb, fromProd, denyAll),
			events: []event{
				has(with(web, ending)), has(with(db, ending)), detach(wired(web)),
				detach(wired(db)),
				gone(web), gone(db),
				{thing: fromProd.thing}, {thing: denyAll.thing}, gone(dev),
			}},
		{name: "a namespace comes last", events: and(fromProd, denyAll)},
		{name: "a policy is edited", before: and(fromWeb),
			events: []event{fromProd, fromNodes, p(`{podSelector: {matchLabels: {app: web}}}`)}},
		{name: "a policy opens what another closes", before: and(denyAll),
			events: []event{fromWeb, p(`{podSelector: {}, ingress: [{}]}`)}},
		{name: "policies go", before: and(fromWeb, denyAll),
			events: []event{{thing: denyAll.thing}, {thing: fromWeb.thing}}},
		{name: "two policies share their selectors, one goes",
			before: and(fromWeb,
				has(rules(t, "dev/q", `{podSelector: {matchLabels: {app: db}}, ingress: [
			{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}, {port: 81}]}]}`))), events: []event{{thing: fromWeb.thing}}},
		{name: "a policy becomes unreadable, another readable",
			before: and(fromWeb,
				has(rules(t, "dev/bad", `{podSelector: {}, ingress: [{from: [{}]}]}`))),
			events: []event{
				p(`{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Odd}]}}]}]}`),
				has(rules(t, "dev/bad",
					`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`)),
			}},
		{name: "ClusterNetworkPolicies come", before: and(fromWeb), events: []event{guard, pass}},
		{name: "ClusterNetworkPolicies are edited", before: and(fromWeb, guard, pass),
			events: []event{
				tier(t, "pass", `{tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [
					{action: Pass, to: [{networks: [10.244.0.0/16]}]}]}`),
				tier(t, "guard", `{tier: Baseline, priority: 9, subject: {namespaces: {}}, ingress: [
					{action: Deny, from: [{namespaces: {}}]}]}`),
			}},
		{name: "ClusterNetworkPolicies go", before: and(fromWeb, guard, pass),
			events: []event{{thing: guard.thing}, {thing: pass.thing}}},
		{name: "an ipBlock shrinks and grows", before: and(fromNodes), events: []event{
			p(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.2.0/24]}}]}]}`),
			p(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/31}}, {ipBlock: {cidr: fd00::/8}}]}]}`),
		}},
		{name: "a node's address changes", before: and(fromNodes),
			events: []event{has(machine("n2", "198.51.100.3", "10.244.2.0/24")),
				has(machine("n2", "192.0.2.2"))}},
		{name: "a node goes, another gets its range", before: and(fromNodes), events: []event{
			has(machine("n3", "198.51.100.3", "10.244.2.0/24")), gone(there),
		}},
		{name: "two nodes claim one range", before: and(fromNodes), events: []event{
			has(machine("n3", "198.51.100.3", "10.244.2.0/24")),
			has(machine("n4", "198.51.100.4", "10.244.2.0/24")),
		}},
		{name: "the node's own object comes again", before: and(fromNodes),
			events: []event{gone(here), has(here)}},
		{name: "nothing happens", before: and(fromWeb, denyAll)},
	}...)
}
