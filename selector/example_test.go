package selector_test

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/selector"
)

func ExampleIndex() {
	ix := selector.NewIndex()
	web := ix.Add(selector.Selector{
		Namespaces: selector.Labels{{Key: "team", Op: selector.In, Values: []string{"blue"}}},
		Pods:       selector.Labels{{Key: "app", Op: selector.In, Values: []string{"web"}}},
	})
	pod := selector.Pod{Namespace: "shop", Name: "web-0", UID: "1"}

	// A namespace that isn't known yet matches no label selector.
	fmt.Println(ix.SetPod(pod, map[string]string{"app": "web"}))
	for _, c := range ix.SetNamespace("shop", map[string]string{"team": "blue"}) {
		fmt.Println(c.Pod.Name, c.Member, c.Selector)
	}
	for _, c := range ix.SetPod(pod, map[string]string{"app": "db"}) {
		fmt.Println(c.Pod.Name, c.Member, c.Selector)
	}
	fmt.Println(ix.Len(web))
	// Output:
	// []
	// web-0 true namespaces team=blue: app=web
	// web-0 false namespaces team=blue: app=web
	// 0
}

func ExampleSelector_Key() {
	s := selector.Selector{
		Namespace: "shop",
		Pods: selector.Labels{
			{Key: "tier", Op: selector.NotIn, Values: []string{"b", "a"}},
			{Key: "app", Op: selector.In, Values: []string{"web"}},
			{Key: "canary", Op: selector.DoesNotExist},
		},
	}
	fmt.Println(s.Key())
	// Output: namespace shop: app=web, !canary, tier notin (a, b)
}

func ExampleSubtract() {
	except := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/9"), netip.MustParsePrefix("10.255.255.255/32")}
	for _, r := range selector.Subtract(netip.MustParsePrefix("10.0.0.0/8"), except) {
		fmt.Println(r)
	}
	// Output: 10.128.0.0-10.255.255.254
}

func ExampleMergePorts() {
	const tcp = 6
	fmt.Println(selector.MergePorts([]selector.PortRange{
		{Protocol: tcp, First: 443, Last: 443},
		{Protocol: tcp, First: 80, Last: 85},
		{Protocol: tcp, First: 86, Last: 90},
	}))
	// Output: [{6 80 90} {6 443 443}]
}
