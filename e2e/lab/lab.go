package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/lab/controlplane"
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/test/probe"
)

// Lab is a lab that this process has brought up. It ends with Down or with the process. Its methods
// may be called concurrently, but not after Down.
type Lab struct {
	*View
	options  Options
	state    state
	programs assets.Programs
	spawner  *process.Spawner
	control  *controlplane.ControlPlane
	server   *probe.Server // of the outside host

	changing sync.Mutex // held while nodes come and go
	numbers  int        // of the nodes that there ever were
	nodesMu  sync.Mutex
	nodes    []*Node // by number
	ghosts   int     // nodes that were created as objects only

	background sync.WaitGroup // scheduler and kubelets
	running    context.Context
	stop       context.CancelFunc
	down       sync.Once
	downErr    error
}

// Up brings up a lab and returns when it is ready: the API server answers, and every node's agent
// is ready. The first time on a machine it builds programs, which takes minutes; Options.Progress
// says so. When ctx ends before, what was made is removed. It is an error if there is a lab of this
// name.
func Up(ctx context.Context, options Options) (*Lab, error) {
	if err := options.Check(); err != nil {
		return nil, err
	}
	options, err := options.complete()
	if err != nil {
		return nil, err
	}
	files, err := assets.ControlPlane(ctx, options.Progress)
	if err != nil {
		return nil, fmt.Errorf("getting the control plane: %w", err)
	}
	programs, err := assets.Wiring(ctx, options.Progress, options.NoAgent)
	if err != nil {
		return nil, err
	}
	l := &Lab{
		options:  options,
		programs: programs,
		state:    options.state(),
	}
	l.state.Kubectl, l.state.Agent, l.state.Supervisor = files.Kubectl, programs.Agent, os.Getpid()
	l.running, l.stop = context.WithCancel(context.Background())
	if err := l.claim(); err != nil {
		return nil, err
	}
	if err := l.up(ctx, files); err != nil {
		return nil, errors.Join(fmt.Errorf("bringing up lab %s: %w", options.Name, err), l.Down())
	}
	return l, nil
}

// checkFree says whether there is a lab of a name.
func checkFree(name string) error {
	if _, err := os.Lstat(stateDir(name)); err == nil {
		return fmt.Errorf("there is a lab %s already: lab down --name %s removes it", name, name)
	}
	return nil
}

// claim makes the lab's folder, which only one process can.
func (l *Lab) claim() error {
	if err := os.MkdirAll(stateRoot, 0o755); err != nil {
		return err
	}
	dir := stateDir(l.options.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return checkFree(l.options.Name)
		}
		return err
	}
	l.spawner = process.NewSpawner(l.options.Name, filepath.Join(dir, processesDir))
	return nil
}

func (l *Lab) up(ctx context.Context, files assets.Control) error {
	var err error
	if l.state.Started, err = process.StartTime(os.Getpid()); err != nil {
		return err
	}
	if err := l.state.write(); err != nil {
		return err
	}
	for _, dir := range []string{processesDir, podsDir} {
		if err := os.Mkdir(filepath.Join(stateDir(l.options.Name), dir), 0o700); err != nil {
			return err
		}
	}
	if err := l.startControlPlane(files); err != nil {
		return err
	}
	if err := l.makeNetwork(); err != nil { // while the control plane starts
		return err
	}
	if err := l.control.WaitReady(ctx); err != nil {
		return err
	}
	if err := l.populate(ctx); err != nil {
		return err
	}
	l.state.Ready = true
	return l.state.write()
}

func (l *Lab) startControlPlane(files assets.Control) error {
	var err error
	dir := stateDir(l.options.Name)
	l.control, err = controlplane.New(l.spawner, files, filepath.Join(dir, controlDir),
		l.state.plan().services())
	if err != nil {
		return err
	}
	if err := l.control.StartEtcd(); err != nil {
		return err
	}
	if err := l.control.StartAPIServer(); err != nil { // which waits for etcd
		return err
	}
	err = l.control.WriteAdminKubeconfig(filepath.Join(dir, kubeconfigFile), l.options.Name)
	if err != nil {
		return err
	}
	l.View, err = newView(l.state)
	return err
}

// makeNetwork makes the underlay, the outside host, and the nodes.
func (l *Lab) makeNetwork() error {
	conf, err := json.MarshalIndent(l.options.netConf(), "", "  ")
	if err != nil {
		return err
	}
	if err := l.SetNetConf(string(conf) + "\n"); err != nil {
		return err
	}
	if err := l.makeUnderlay(); err != nil {
		return err
	}
	if err := l.makeOutside(); err != nil {
		return err
	}
	for range l.options.Nodes {
		if _, err := l.makeNode(); err != nil {
			return err
		}
	}
	l.server, err = l.Serve(Outside, probe.TCP, outsidePort)
	return err
}

// populate makes the cluster's objects, starts the agents and what stands in for controllers and
// kubelets.
func (l *Lab) populate(ctx context.Context) error {
	if err := l.permitAgents(ctx); err != nil {
		return fmt.Errorf("giving the agents their permissions: %w", err)
	}
	l.follow()
	for _, node := range l.Nodes() {
		if err := node.join(ctx); err != nil {
			return err
		}
	}
	var nodes errgroup.Group
	for _, node := range l.Nodes() {
		nodes.Go(func() error { return node.WaitReady(ctx) })
	}
	return nodes.Wait()
}

// permitAgents applies what an installation would give the agent's service account.
func (l *Lab) permitAgents(ctx context.Context) error {
	if err := l.Apply(ctx,
		"{apiVersion: v1, kind: Namespace, metadata: {name: sluice-system}}"); err != nil {
		return err
	}
	for _, file := range []string{"service_account.yaml", "role.yaml", "role_binding.yaml"} {
		manifests, err := assets.ReadFile("config/rbac/" + file)
		if err != nil {
			return err
		}
		if err := l.Apply(ctx, string(manifests)); err != nil {
			return err
		}
	}
	return nil
}

// StopAPIServer kills the API server. Its data stays.
func (l *Lab) StopAPIServer() { l.control.StopAPIServer() }

// StartAPIServer starts the API server again, at the same address and with the same data, and
// returns when it is ready.
func (l *Lab) StartAPIServer(ctx context.Context) error {
	if err := l.control.StartAPIServer(); err != nil {
		return err
	}
	return l.control.WaitReady(ctx)
}

// Down removes the lab: its processes, namespaces and files. Called again, it returns the same
// error.
func (l *Lab) Down() error {
	l.down.Do(func() { l.downErr = l.remove() })
	return l.downErr
}

func (l *Lab) remove() error {
	l.stop()
	l.background.Wait()
	dir := stateDir(l.options.Name)
	errs := []error{process.KillRecorded(filepath.Join(dir, processesDir))}
	l.spawner.Close()
	if l.server != nil {
		l.server.Close()
	}
	for _, node := range l.nodes {
		node.proxy.Cut()
	}
	errs = append(errs, namespace.DeleteAll(l.options.Name), os.RemoveAll(dir))
	return errors.Join(errs...)
}
