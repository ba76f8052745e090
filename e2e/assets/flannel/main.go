// Command flannel is flannel for one node: its own packages, put together as its flanneld does it
// for Kubernetes with nftables. flanneld itself can't be built without backends for clouds, some of
// whose modules can't be had everywhere.
//
// It is a module of its own because it requires other Kubernetes libraries. Only benchmarks run it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw" // registers itself, as does vxlan
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
)

// flanneld's defaults.
const (
	annotationPrefix = "flannel.alpha.coreos.com"
	resyncSeconds    = 5
)

func main() {
	kubeconfig := flag.String("kubeconfig-file", "", "how to reach the API server")
	conf := flag.String("net-config-path", "", "the network, as net-conf.json; NODE_NAME names the node")
	subnetFile := flag.String("subnet-file", "", "written once the network is ready")
	device := flag.String("iface", "", "the interface that leads to other nodes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *conf, *subnetFile, *device); err != nil {
		fmt.Fprintln(os.Stderr, "flannel:", err)
		os.Exit(1)
	}
}

// run is flannel until its context ends.
func run(until context.Context, kubeconfig, conf, subnetFile, device string) error {
	ctx, stop := context.WithCancel(until)
	defer stop()
	manager, err := kube.NewSubnetManager(ctx, "", kubeconfig, annotationPrefix, conf, false)
	if err != nil {
		return fmt.Errorf("reaching the API server: %w", err)
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("reading the network's configuration: %w", err)
	}
	var running sync.WaitGroup
	network, err := register(ctx, &running, manager, config, device)
	if err != nil {
		return err
	}
	if err := translate(ctx, config, network.Lease()); err != nil {
		return err
	}
	own := network.Lease()
	const masquerades = true
	err = manager.HandleSubnetFile(subnetFile, config, masquerades, own.Subnet, own.IPv6Subnet,
		network.MTU())
	if err != nil {
		return fmt.Errorf("writing %s: %w", subnetFile, err)
	}
	running.Go(func() { network.Run(ctx) })
	err = manager.CompleteLease(ctx, own, &running) // of Kubernetes it never ends
	if err != nil {
		stop()
	}
	running.Wait()
	if until.Err() != nil {
		return nil // it was to end
	}
	return fmt.Errorf("keeping the node's lease: %w", err)
}

// register makes the backend's network, by the interface that leads to other nodes.
func register(ctx context.Context, running *sync.WaitGroup, manager subnet.Manager,
	config *subnet.Config, device string) (backend.Network, error) {
	families, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return nil, fmt.Errorf("finding the address families: %w", err)
	}
	external, err := ipmatch.LookupExtIface(device, "", "", families, ipmatch.PublicIPOpts{})
	if err != nil {
		return nil, fmt.Errorf("looking for interface %s: %w", device, err)
	}
	kind, err := backend.NewManager(ctx, manager, external).GetBackend(config.BackendType)
	if err != nil {
		return nil, fmt.Errorf("making backend %s: %w", config.BackendType, err)
	}
	network, err := kind.RegisterNetwork(ctx, running, config)
	if err != nil {
		return nil, fmt.Errorf("making the network: %w", err)
	}
	return network, nil
}

// translate sets up masquerading, and that pods' packets may be forwarded.
func translate(ctx context.Context, config *subnet.Config, own *lease.Lease) error {
	var rules nftables.NFTablesManager
	if err := rules.Init(ctx); err != nil {
		return fmt.Errorf("making the tables: %w", err)
	}
	const inOrder = false // ports of masqueraded connections are chosen at random, by default
	err := rules.SetupAndEnsureMasqRules(ctx, config.Network, ip.IP4Net{}, ip.IP4Net{},
		config.IPv6Network, ip.IP6Net{}, ip.IP6Net{}, own, resyncSeconds, inOrder)
	if err != nil {
		return fmt.Errorf("making the rules for masquerading: %w", err)
	}
	rules.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, resyncSeconds)
	return nil
}
