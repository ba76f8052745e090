package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/install"
	cniserver "github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/controllers/answers"
	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/verify/kernel"
)

// agent has the parts that run. Each part is made from those before it.
type agent struct {
	enforcer *enforcer.Enforcer
	network  *controllers.PodNetwork // nil with --policy-only
	parts    []manager.RunnableFunc
}

// tools are what all parts are made with.
type tools struct {
	options    *options
	log        logr.Logger
	mgr        ctrl.Manager
	eventQueue *notify.EventQueue
	nodeEvents notify.NodeEvents
	metrics    *controllers.Metrics
	// clusterPolicies are the ClusterNetworkPolicies that there are.
	clusterPolicies *controllers.ClusterPolicies
}

// newAgent makes the parts of the agent. It adds the reconcilers to the manager; the caller adds
// the others. It calls unwatched with the name of a resource that isn't watched any more.
func newAgent(
	o *options, log logr.Logger, mgr ctrl.Manager, eventQueue *notify.EventQueue,
	table *table.Table, unwatched func(resource string),
) (*agent, error) {
	t := &tools{
		options: o, log: log, mgr: mgr, eventQueue: eventQueue,
		nodeEvents:      notify.NodeEvents{Node: o.node, Recorder: eventQueue},
		clusterPolicies: &controllers.ClusterPolicies{},
	}
	samples := enforcer.SamplesPerSecond(uint64(o.logPerSecond), uint16(o.logGroup), log)
	e, enforcerMetrics := t.newEnforcer(table, samples)
	server, reserveTunnel, err := t.newServer(e)
	if err != nil {
		return nil, err
	}
	e.Adopt(server.Attachments())
	verifier := answers.NewVerifier(e, kernel.Options{}, t.nodeEvents, log.WithName("verify"))
	t.metrics = controllers.NewMetrics(server.Stats)
	err = registerMetrics([]prometheus.Collector{enforcerMetrics, enforcer.NewDenialCollector(e),
		t.metrics},
		verifier.Metrics(), eventQueue.Metrics())
	if err != nil {
		return nil, err
	}
	server.Handle(cni.PathWhy, answers.WhyHandler(e, mgr.GetAPIReader(), log.WithName("why")))
	server.Handle(cni.PathWhyLive, answers.WhyLiveHandler(e, e.Connections, log.WithName("why")))
	server.Handle(cni.PathVerify, answers.VerifyHandler(verifier))
	forwarding := t.newForwardingCheck(server)
	datapath := t.newDatapath(e, server, forwarding, reserveTunnel)
	cutOptions := enforcer.CutterOptions{Off: !o.cutEstablished, Log: log.WithName("cutter")}
	cutter := enforcer.NewCutter(e, cutOptions)
	ipvs := enforcer.NewIPVSWatch(e, nil, log.WithName("ipvs"))
	if err := ipvs.Start(); err != nil {
		return nil, err
	}
	departures := enforcer.NewDepartures(e, server.ForgetConnections, o.forgetEvery())
	tracking := t.newTrackingCheck()
	out := &agent{enforcer: e, parts: []manager.RunnableFunc{
		server.Run, server.KeepHostEnds, every(reapInterval, server.Reap), datapath.Run, cutter.Run,
		departures.Run, ipvs.Run, tracking.Run, eventQueue.Run,
	}}
	if o.verify == "continuous" {
		out.parts = append(out.parts, verifier.Run)
	}
	var tunnel *controllers.TunnelCheck // nil with --policy-only, and if no node is to be asked
	if !o.policyOnly {
		if o.tunnelProbeInterval > 0 {
			tunnelLog := log.WithName("tunnel")
			tunnel = controllers.NewTunnelCheck(o.node, o.tunnelProbeInterval, t.nodeEvents,
				t.metrics, tunnelLog)
		}
		out.network = t.newNetwork(e, datapath, tunnel)
		out.parts = append(out.parts, out.network.Run, tunnel.Run)
	}
	if samples > 0 {
		denials := &enforcer.DenialLog{
			Enforcer: e, Group: uint16(o.logGroup), Log: log.WithName("denials"),
		}
		out.parts = append(out.parts, denials.Run)
	}
	reconcilers := &controllers.Agent{
		Node: o.node, Reader: mgr.GetClient(), Enforcer: e, Events: eventQueue, Metrics: t.metrics,
		Log: log.WithName("agent"), ClusterPolicies: t.clusterPolicies,
		Unwatched: unwatched, Network: out.network, Tunnel: tunnel, Left: departures.Leave,
		PolicyOnly: controllers.PolicyOnlyPods{
			Enabled: o.policyOnly, Guard: o.policyOnly && o.unknownPods == "drop",
			Left: departures.Leave,
		},
		OwnNode: func(podCIDRs []netip.Prefix, addresses []netip.Addr) {
			server.SetNodeAddresses(addresses)
			if o.policyOnly {
				server.SetPodCIDRs(podCIDRs)
				forwarding.SetPods(nil, podCIDRs)
			}
		},
	}
	if err := reconcilers.SetupWithManager(mgr); err != nil {
		return nil, err
	}
	return out, nil
}

func (t *tools) newDatapath(
	e *enforcer.Enforcer, s *cniserver.Server, forwarding *controllers.ForwardingCheck,
	reserveTunnel bool,
) *controllers.Datapath {
	o := t.options
	return &controllers.Datapath{
		Enforcer: e, Server: s, PolicyOnly: o.policyOnly, Masquerade: o.masquerade,
		ConfDir: o.cniConfDir,
		Conflist: install.ConflistOptions{
			Socket: o.socket, StateDir: o.stateDir, Exclusive: o.cniExclusive,
		},
		ReserveTunnel: reserveTunnel, Forwarding: forwarding,
		SubnetFile: o.subnetFile, RunDir: o.runDir,
		Events: t.nodeEvents, Log: t.log.WithName("datapath"),
	}
}

// reapInterval is the time between two looks for pods that are gone without a DEL. Two in a row
// have to find a pod gone.
const reapInterval = 10 * time.Second

// every calls f again and again, for the first time after the interval, until ctx ends.
func every(interval time.Duration, f func(context.Context)) manager.RunnableFunc {
	return func(ctx context.Context) error {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f(ctx)
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (a *agent) networkReady() error {
	if a.network == nil {
		return nil
	}
	return a.network.Ready()
}

func (t *tools) newEnforcer(table *table.Table,
	samples uint64) (*enforcer.Enforcer, *enforcer.Metrics) {
	o := t.options
	allow := o.podToNode == "allow"
	model := enforcer.NewModel(
		cluster.Options{Node: o.node, PolicyOnly: o.policyOnly, AllowPodToNode: allow},
		ruleset.Config{
			AllowPodToNode: allow, LogGroup: uint16(o.logGroup), LogPerSecond: samples,
			CutLabel: uint8(o.cutLabel),
		})
	reporter := &controllers.Reporter{Node: o.node, Reader: t.mgr.GetClient(), Events: t.eventQueue,
		ClusterPolicies: t.clusterPolicies}
	counts := enforcer.NewMetrics()
	return enforcer.New(table, model, enforcer.Options{
		Log: t.log.WithName("enforcer"), Metrics: counts,
		Warn: t.nodeEvents.Warn, Say: t.nodeEvents.Say,
		OnRefused: reporter.Refused, OnShed: reporter.Shed,
	}), counts
}

// newServer also reports whether the tunnel's port is kept from pods as a host port.
func (t *tools) newServer(e *enforcer.Enforcer) (server *cniserver.Server, reserveTunnel bool,
	err error) {
	o := t.options
	podEvents := notify.NodeEvents{Node: o.node, Recorder: t.eventQueue.From("pods of the node")}
	reserved, reserveTunnel, err := o.reservedPorts()
	if err != nil {
		return nil, false, err
	}
	server, err = cniserver.New(cniserver.Options{
		Socket: o.socket, StateDir: o.stateDir, Enforcer: e, PolicyOnly: o.policyOnly,
		Log: t.log.WithName("cni"), OnProblem: podEvents.Warn, OnSolved: podEvents.Say,
		CoolDown: o.coolDown, SysctlDir: o.sysctlDir, ReservedPorts: reserved,
	})
	return server, reserveTunnel, err
}

func registerMetrics(all ...[]prometheus.Collector) error {
	for _, c := range slices.Concat(all...) {
		if err := metrics.Registry.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

func (t *tools) newForwardingCheck(server *cniserver.Server) *controllers.ForwardingCheck {
	o := t.options
	return &controllers.ForwardingCheck{
		PolicyOnly: o.policyOnly, Accept: o.forwardAccept, SysctlDir: o.sysctlDir,
		Taken: func() (taken []netip.Addr) {
			for _, attachment := range server.Attachments() {
				taken = append(taken, attachment.Addresses...)
			}
			return taken
		},
		Events: t.nodeEvents, Metrics: t.metrics, Log: t.log.WithName("forwarding"),
	}
}

func (t *tools) newTrackingCheck() *controllers.TrackingCheck {
	return &controllers.TrackingCheck{
		SysctlDir: t.options.sysctlDir, Events: t.nodeEvents, Metrics: t.metrics,
		Log: t.log.WithName("tracking"),
	}
}

// savedNetConf is where in the state directory the last good configuration of the pod network is
// kept.
const savedNetConf = "net-conf.json"

func (t *tools) newNetwork(
	e *enforcer.Enforcer, datapath *controllers.Datapath, tunnel *controllers.TunnelCheck,
) *controllers.PodNetwork {
	o := t.options
	return controllers.NewPodNetwork(controllers.NetworkOptions{
		Node: o.node, ConfigFile: o.netConf, SavedFile: filepath.Join(o.stateDir, savedNetConf),
		Underlay: o.underlay(), Masquerade: o.masquerade,
		ToNodes: controllers.ToNodes(o.masqueradeToNodes),
		Overlay: overlay.Options{SysctlDir: o.sysctlDir, Log: t.log.WithName("overlay")},
		Events:  t.nodeEvents, Metrics: t.metrics, Log: t.log.WithName("network"),
		OnRules: e.SetNetwork, OnState: func(s controllers.NetworkState) {
			datapath.SetState(s)
			tunnel.SetState(s)
		},
	})
}
