package enforcer_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
)

// A pod is attached: once Attach returns, its policy is in the kernel.
func ExampleEnforcer() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kernel, err := table.Open(table.Options{Tallied: ruleset.DeniedChains})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer kernel.Close()
	model := enforcer.NewModel(cluster.Options{Node: "n1"}, ruleset.Config{})
	e := enforcer.New(kernel, model, enforcer.Options{})
	go func() { fmt.Println(e.Run(ctx)) }()

	pod := policy.Pod{ID: selector.Pod{Namespace: "dev", Name: "web-0", UID: "4d"}, Node: "n1"}
	e.Update(func(m *enforcer.Model) { m.SetPod(pod) })
	err = e.Attach(ctx, cni.Attachment{ContainerID: "4d1f", IfName: "eth0", PodNamespace: "dev",
		PodName: "web-0", PodUID: "4d", Interface: cni.InterfaceName("dev", "web-0", "eth0"),
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2")}})
	fmt.Println(err)
}
