// Command sluice-agent enforces NetworkPolicy on one Kubernetes node and answers the node's CNI
// plugin. Its first argument may be a command instead: why asks a running agent about a connection,
// verify asks it whether the kernel does what the policies mean, check says whether a node is fit
// for an agent, install puts the plugin on a node, uninstall takes everything off it, and version
// prints the version.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/controllers/apiguard"
	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/internal/printable"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/ruleset"
)

func main() {
	run, args := command(os.Args[1:])
	if err := run(ctrl.SetupSignalHandler(), args); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(printable.Writer(os.Stderr), "sluice-agent:", err)
		os.Exit(exitCode(err))
	}
}

// command picks the function to run, and its arguments.
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
	case "check":
		run = runCheck
	case "version", "--version", "-version":
		run = runVersion
	default:
		return runAgent, args
	}
	return run, args[1:]
}

// runAgent runs until ctx ends or a part of the agent fails for good.
func runAgent(ctx context.Context, args []string) error {
	k, err := runningKernel()
	if err != nil {
		return err
	}
	return runAgentOn(ctx, k, args)
}

// runAgentOn is runAgent on a kernel. One that it can't work on it leaves as it is.
func runAgentOn(ctx context.Context, k kernels.Kernel, args []string) error {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	log := setLogger(o)
	if err := checkKernel(ctx, k, o.policyOnly, table.Missing, log); err != nil {
		return err
	}
	limitGarbage()
	setMemoryLimit(log)
	cfg, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	api := apiguard.New(o.apiSilence, log.WithName("api"))
	cfg.Wrap(api.Wrap)
	var a *agent // made after the manager, and before the first question
	mgr, err := newManager(cfg, o.httpAddress, handlersOf(o,
		func() error { return a.networkReady() }, func() error { return a.enforcer.Ready() }))
	if err != nil {
		return err
	}
	recorder := mgr.GetEventRecorder("sluice-agent")
	only, err := awaitOtherAgents(ctx, o, notify.NodeEvents{Node: o.node, Recorder: recorder}, log)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer only.release()
	table, err := table.Open(table.Options{Own: o.ownTable, Tallied: ruleset.DeniedChains})
	if err != nil {
		return err
	}
	defer table.Close()
	eventQueue := notify.NewEventQueue(recorder)
	api.SetEvents(notify.NodeEvents{Node: o.node, Recorder: eventQueue})
	bugs := reportBugs(k, kernels.Bugs(),
		notify.NodeEvents{Node: o.node, Recorder: eventQueue}, log)
	if err := registerMetrics(api.Metrics(), bugs); err != nil {
		return err
	}
	a, err = newAgent(o, log, mgr, eventQueue, table, api.Forget)
	if err != nil {
		return err
	}
	for _, run := range a.parts {
		if err := mgr.Add(run); err != nil {
			return fmt.Errorf("adding a part of the agent: %w", err)
		}
	}
	return mgr.Start(ctx)
}

// ignoreEnd is err, or nil if err only says that ctx has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// forever is longer than any node runs.
const forever = 100 * 365 * 24 * time.Hour

func newManager(
	cfg *rest.Config, httpAddress string, handlers map[string]http.Handler,
) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("building the scheme: %w", err)
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme,
		Cache:  controllers.CacheOptions(),
		// An agent that starts while the API server is away waits for it without a limit: if it
		// ended, kubelet would start it again later and later.
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			return controllers.RESTMapper(), nil
		},
		Controller: config.Controller{CacheSyncTimeout: forever},
		Metrics: metricsserver.Options{
			BindAddress: httpAddress, ExtraHandlers: handlers,
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
			return nil,
				fmt.Errorf("reading the cluster's configuration from inside, as --kubeconfig "+
					"isn't given: %w", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading --kubeconfig=%s: %w", kubeconfig, err)
	}
	return cfg, nil
}
