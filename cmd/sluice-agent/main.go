// Command sluice-agent enforces NetworkPolicy on one Kubernetes node and
// answers the node's CNI plugin. Its first argument may be a command instead:
// why asks a running agent about a connection, verify whether the kernel does
// what the policies mean, install and uninstall put the
// plugin on a node and take everything off it, version says which this is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/install"
	cniserver "github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/internal/printable"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy"
)

func main() {
	run, args := command(os.Args[1:])
	if err := run(ctrl.SetupSignalHandler(), args); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(printable.Writer(os.Stderr), "sluice-agent:", err)
		os.Exit(exitCode(err))
	}
}

// command picks what is to run, and with which arguments.
func command(args []string) (run func(context.Context, []string) error, rest []string) {
	if len(args) == 0 {
		return runAgent, nil
	}
	switch args[0] {
	case "why":
		run = runWhy
	case "verify":
		run = runVerify
	case "install":
		run = runInstall
	case "uninstall":
		run = runUninstall
	case "version", "--version", "-version":
		run = runVersion
	default:
		return runAgent, args
	}
	return run, args[1:]
}

// runAgent runs until ctx ends or a part of the agent fails for good.
func runAgent(ctx context.Context, args []string) error {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	log := setLogger(o)
	heedMemoryLimit(log)
	cfg, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	a := &agent{options: o, log: log, api: controllers.NewAPIGuard(o.apiSilence, log.WithName("api"))}
	cfg.Wrap(a.api.Wrap)
	mgr, err := a.newManager(cfg)
	if err != nil {
		return err
	}
	a.events = controllers.NodeEvents{Node: o.node, Recorder: mgr.GetEventRecorder("sluice-agent")}
	only, err := beAlone(ctx, o, a.events, log)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer only.release()
	table, err := table.Open(table.Options{Own: o.ownTable, Tallied: controllers.DeniedChains})
	if err != nil {
		return err
	}
	defer table.Close()
	allow := o.podToNode == "allow"
	a.samples = controllers.SamplesPerSecond(uint64(o.logPerSecond), uint16(o.logGroup), log)
	a.enforcer = controllers.NewEnforcer(table,
		policy.Options{Node: o.node, ForeignPods: o.policyOnly, AllowPodToNode: allow},
		controllers.RulesetConfig{AllowPodToNode: allow, LogGroup: uint16(o.logGroup), LogPerSecond: a.samples, CutLabel: uint8(o.cutLabel)},
		log.WithName("enforcer"))
	if err := a.addParts(mgr); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// ignoreEnd is err, unless that only says that the agent is to end.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// forever is longer than a node is up.
const forever = 100 * 365 * 24 * time.Hour

// agent is what the parts of the program have in common.
type agent struct {
	options  *options
	log      logr.Logger
	enforcer *controllers.Enforcer
	events   controllers.NodeEvents
	network  *controllers.PodNetwork  // nil with --policy-only
	tunnel   *controllers.TunnelCheck // likewise, and nil if nobody is to be asked
	samples  uint64                   // of denied packets, for each pod and second
	api      *controllers.APIGuard
}

func (a *agent) newManager(cfg *rest.Config) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("building the scheme: %w", err)
	}
	networkReady := func() error {
		if a.network == nil {
			return nil
		}
		return a.network.Ready()
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme,
		Cache:  controllers.CacheOptions(),
		// An agent that starts while the API server is away waits for it, however long: ended, it would be started again later and later.
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return controllers.RESTMapper(), nil },
		Controller:     config.Controller{CacheSyncTimeout: forever},
		Metrics: metricsserver.Options{
			BindAddress: a.options.httpAddress, ExtraHandlers: controllers.HealthHandlers(networkReady, a.ready),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making the manager: %w", err)
	}
	return mgr, nil
}

func (a *agent) ready() error { return a.enforcer.Ready() } // which is there before anybody asks

// addParts adds everything that runs to the manager.
func (a *agent) addParts(mgr ctrl.Manager) error {
	o := a.options
	eventQueue := controllers.NewEventQueue(a.events.Recorder)
	nodeEvents := controllers.NodeEvents{Node: o.node, Recorder: eventQueue}
	podEvents := controllers.NodeEvents{Node: o.node, Recorder: eventQueue.From("pods of the node")}
	a.enforcer.Events = nodeEvents
	a.api.SetEvents(nodeEvents)
	reserved, reserveTunnel, err := o.reservedPorts()
	if err != nil {
		return err
	}
	server, err := cniserver.New(cniserver.Options{
		Socket: o.socket, StateDir: o.stateDir, Enforcer: a.enforcer, PolicyOnly: o.policyOnly, Log: a.log.WithName("cni"),
		OnProblem: podEvents.Warn, OnSolved: podEvents.Say, CoolDown: o.coolDown, SysctlDir: o.sysctlDir, ReservedPorts: reserved,
	})
	if err != nil {
		return err
	}
	if err := controllers.RegisterMetrics(server.Stats); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := controllers.RegisterDenialMetrics(a.enforcer); err != nil {
		return err
	}
	server.Handle(cni.PathWhy, controllers.WhyHandler(a.enforcer, mgr.GetAPIReader()))
	server.Handle(cni.PathWhyLive, controllers.WhyLiveHandler(a.enforcer, a.enforcer.Connections))
	verifier := &controllers.Verifier{Enforcer: a.enforcer, Events: nodeEvents, Log: a.log.WithName("verify")}
	server.Handle(cni.PathVerify, controllers.VerifyHandler(verifier))
	a.enforcer.Adopt(server.Attachments())
	forwarding := &controllers.ForwardCheck{
		PolicyOnly: o.policyOnly, Accept: o.forwardAccept, SysctlDir: o.sysctlDir,
		Taken: func() (taken []netip.Addr) {
			for _, attachment := range server.Attachments() {
				taken = append(taken, attachment.Addresses...)
			}
			return taken
		},
		Events: nodeEvents, Log: a.log.WithName("forwarding"),
	}
	datapath := &controllers.Datapath{
		Enforcer: a.enforcer, Server: server, PolicyOnly: o.policyOnly, Masquerade: o.masquerade,
		ConfDir: o.cniConfDir, Conflist: install.ConflistOptions{Socket: o.socket, StateDir: o.stateDir, Exclusive: o.cniExclusive},
		ReserveTunnel: reserveTunnel, Forward: forwarding, SubnetFile: o.subnetFile, RunDir: o.runDir, Events: nodeEvents, Log: a.log.WithName("datapath"),
	}
	cutter := controllers.NewCutter(a.enforcer, controllers.CutterOptions{Off: !o.cutEstablished, Log: a.log.WithName("cutter")})
	tracking := &controllers.TrackingCheck{SysctlDir: o.sysctlDir, Events: nodeEvents, Log: a.log.WithName("tracking")}
	parts := []manager.RunnableFunc{server.Run, datapath.Run, cutter.Run, tracking.Run, eventQueue.Run}
	if o.verify == "continuous" {
		parts = append(parts, verifier.Run)
	}
	if !o.policyOnly {
		a.network = a.newNetwork(nodeEvents, datapath)
		parts = append(parts, a.network.Run, a.tunnel.Run)
	}
	if a.samples > 0 {
		denials := &controllers.DenialLog{Enforcer: a.enforcer, Group: uint16(o.logGroup), Log: a.log.WithName("denials")}
		parts = append(parts, denials.Run)
	}
	departures := controllers.NewDepartures(server.ForgetConnections, o.forgetEvery())
	reconcilers := &controllers.Agent{
		Node: o.node, Reader: mgr.GetClient(), Enforcer: a.enforcer, Events: eventQueue, Log: a.log.WithName("agent"),
		Network: a.network, Tunnel: a.tunnel, Departures: departures,
		Foreign: controllers.ForeignPods{Enabled: o.policyOnly, Guard: o.policyOnly && o.unknownPods == "drop", Departures: departures},
		OwnNode: func(podCIDRs []netip.Prefix, addresses []netip.Addr) {
			server.SetNodeAddresses(addresses)
			if o.policyOnly {
				server.SetPodCIDRs(podCIDRs)
				forwarding.SetPods(nil, podCIDRs)
			}
		},
	}
	if err := reconcilers.SetupWithManager(mgr); err != nil {
		return err
	}
	for _, run := range parts {
		if err := mgr.Add(run); err != nil {
			return fmt.Errorf("adding a part of the agent: %w", err)
		}
	}
	return nil
}

// savedNetConf is where in the state directory the last good configuration of the pod network is kept.
const savedNetConf = "net-conf.json"

func (a *agent) newNetwork(nodeEvents controllers.NodeEvents, datapath *controllers.Datapath) *controllers.PodNetwork {
	o := a.options
	if o.tunnelProbeInterval > 0 {
		a.tunnel = controllers.NewTunnelCheck(o.node, o.tunnelProbeInterval, nodeEvents, a.log.WithName("tunnel"))
	}
	return controllers.NewPodNetwork(controllers.NetworkOptions{
		Node: o.node, ConfigFile: o.netConf, SavedFile: filepath.Join(o.stateDir, savedNetConf),
		Underlay: o.underlay(), Masquerade: o.masquerade, ToNodes: controllers.ToNodes(o.masqueradeToNodes),
		Overlay: overlay.Options{SysctlDir: o.sysctlDir, Log: a.log.WithName("overlay")},
		Events:  nodeEvents, Log: a.log.WithName("network"),
		OnRules: a.enforcer.SetNetwork, OnState: func(s controllers.NetworkState) {
			datapath.SetState(s)
			a.tunnel.SetState(s)
		},
	})
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
