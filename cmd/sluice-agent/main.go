// Command sluice-agent enforces NetworkPolicy on one Kubernetes node and
// answers the node's CNI plugin. "sluice-agent why" asks a running agent about
// a connection.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
)

func main() {
	run := runAgent
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "why" {
		run, args = runWhy, args[1:]
	}
	if err := run(ctrl.SetupSignalHandler(), args); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "sluice-agent:", err)
		os.Exit(1)
	}
}

// options are the agent's flags.
type options struct {
	node, kubeconfig, stateDir, socket, httpAddress, podToNode string
	logGroup, logPerSecond                                     uint
	zap                                                        zap.Options
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("sluice-agent", flag.ContinueOnError)
	fs.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "name of this node's object (required; default $NODE_NAME)")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; empty inside a cluster")
	fs.StringVar(&o.stateDir, "state-dir", "/run/sluice", "where attachments are recorded; must be empty after a reboot, as on tmpfs")
	fs.StringVar(&o.socket, "socket", "", "socket of the CNI server (default STATE-DIR/cni.sock)")
	fs.StringVar(&o.httpAddress, "http-address", "127.0.0.1:9808", "where /healthz, /readyz and /metrics are served; 0: nowhere")
	fs.StringVar(&o.podToNode, "pod-to-node", "policy", "traffic from a pod to its own node: policy (judged as egress) or allow")
	fs.UintVar(&o.logGroup, "log-group", 0, "NFLOG group that samples of denied packets go to")
	fs.UintVar(&o.logPerSecond, "log-per-second", 0, "samples of denied packets, for each pod and direction; 0: none")
	o.zap.BindFlags(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("argument %q: expected flags only, or why", fs.Arg(0))
	case o.node == "":
		return nil, errors.New("--node-name: expected the name of this node's object")
	case o.podToNode != "policy" && o.podToNode != "allow":
		return nil, fmt.Errorf("--pod-to-node=%q: expected policy or allow", o.podToNode)
	case o.logGroup > 65535:
		return nil, fmt.Errorf("--log-group=%d: expected at most 65535", o.logGroup)
	}
	if o.socket == "" {
		o.socket = o.stateDir + "/cni.sock"
	}
	return o, nil
}

// runAgent runs until ctx ends or a part of the agent fails for good.
func runAgent(ctx context.Context, args []string) error {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	log := zap.New(zap.UseFlagOptions(&o.zap)).WithValues("node", o.node)
	ctrl.SetLogger(log)
	cfg, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	table, err := nft.Open(nft.Options{})
	if err != nil {
		return err
	}
	defer table.Close()
	allow := o.podToNode == "allow"
	enforcer := controllers.NewEnforcer(table,
		policy.Options{Node: o.node, AllowPodToNode: allow},
		controllers.RulesetConfig{AllowPodToNode: allow, LogGroup: uint16(o.logGroup), LogPerSecond: uint64(o.logPerSecond)},
		log.WithName("enforcer"))
	server, err := cni.NewServer(cni.ServerOptions{Socket: o.socket, StateDir: o.stateDir, Enforcer: enforcer, Log: log.WithName("cni")})
	if err != nil {
		return err
	}
	server.Handle("/v1/why", controllers.WhyHandler(enforcer))
	enforcer.Adopt(server.Attachments())
	mgr, err := newManager(cfg, o, enforcer)
	if err != nil {
		return err
	}
	agent := &controllers.Agent{
		Node: o.node, Reader: mgr.GetClient(), Enforcer: enforcer, Events: mgr.GetEventRecorder("sluice-agent"),
		Log: log.WithName("agent"), OwnNode: func(podCIDRs []netip.Prefix, addresses []netip.Addr) {
			server.SetPodCIDRs(podCIDRs)
			server.SetNodeAddresses(addresses)
		},
	}
	if err := agent.SetupWithManager(mgr); err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(server.Run)); err != nil {
		return fmt.Errorf("adding the CNI server: %w", err)
	}
	return mgr.Start(ctx)
}

func newManager(cfg *rest.Config, o *options, enforcer *controllers.Enforcer) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("building the scheme: %w", err)
	}
	if err := controllers.RegisterMetrics(); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme,
		Cache:  controllers.CacheOptions(),
		Metrics: metricsserver.Options{
			BindAddress: o.httpAddress, ExtraHandlers: controllers.HealthHandlers(enforcer),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making the manager: %w", err)
	}
	return mgr, nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("reading the cluster's configuration from inside, as --kubeconfig isn't given: %w", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading --kubeconfig=%s: %w", kubeconfig, err)
	}
	return cfg, nil
}
