package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-net/sluice/e2e/internal/replace"
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// stateRoot holds a folder for each lab. It is on tmpfs where a reboot ends the lab as well.
const stateRoot = "/run/sluice-lab"

// The files in a lab's folder.
const (
	stateFile      = "lab.json"
	kubeconfigFile = "kubeconfig"
	processesDir   = "processes" // one file for each running process
	podsDir        = "pods"      // one file for each pod with a network
	nodesDir       = "nodes"     // a folder for each node
	controlDir     = "control-plane"
)

// state is what other processes know of a lab.
type state struct {
	Name       string      `json:"name"`
	Families   Families    `json:"families"`
	Underlay   Families    `json:"underlay"`
	Backend    Backend     `json:"backend,omitempty"` // empty without agents
	Subnets    int         `json:"subnets"`
	RPFilter   RPFilter    `json:"rpFilter"`
	MTU        int         `json:"mtu"`
	Nodes      []nodeState `json:"nodes"`
	Kubectl    string      `json:"kubectl,omitempty"`
	Agent      string      `json:"agent,omitempty"` // the program
	Supervisor int         `json:"supervisor"`      // process that called Up
	Started    string      `json:"started"`         // when that process was started
	Ready      bool        `json:"ready"`
}

// nodeState is what may change of a node.
type nodeState struct {
	Name     string         `json:"name"`
	Number   int            `json:"number"` // decides on its subnet and its MAC
	Addrs    []netip.Addr   `json:"addrs"`
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
}

func (o Options) state() state {
	s := state{
		Name: o.Name, Families: o.Families, Underlay: o.Underlay, Backend: o.Backend,
		Subnets: o.Subnets, RPFilter: o.RPFilter, MTU: o.MTU,
	}
	if o.NoAgent {
		s.Backend = ""
	}
	return s
}

func (s state) plan() plan {
	return plan{pods: s.Families, underlay: s.Underlay, subnets: s.Subnets}
}

// describe is the lab in a line.
func (s state) describe(ctx context.Context) string {
	backend := string(s.Backend)
	if backend == "" {
		backend = "no agents"
	}
	status := "ready"
	switch {
	case !process.IsSame(s.Supervisor, s.Started):
		status = "its process has died"
	case !s.Ready:
		status = "not ready yet"
	case s.Backend != "":
		if silent := s.silentAgents(ctx); len(silent) > 0 {
			status = "not ready: nor is the agent of " + strings.Join(silent, ", ")
		}
	}
	return fmt.Sprintf(
		"%s: %d nodes, %s, pods %s, underlay %s with subnets: %d, rp_filter %s, MTU %d; %s",
		s.Name, len(s.Nodes), backend, s.Families, s.Underlay, s.Subnets, s.RPFilter, s.MTU, status)
}

// silentAgents lists the nodes whose agents don't say that they are ready.
func (s state) silentAgents(ctx context.Context) (nodes []string) {
	silent := make([]bool, len(s.Nodes))
	var all sync.WaitGroup
	for i, node := range s.Nodes {
		all.Go(func() { silent[i] = !agentReady(ctx, namespace.Name(s.Name, node.Name)) })
	}
	all.Wait()
	for i, node := range s.Nodes {
		if silent[i] {
			nodes = append(nodes, node.Name)
		}
	}
	return nodes
}

// agentReady asks the agent in a network namespace.
func agentReady(ctx context.Context, space string) bool {
	client := &http.Client{Transport: &http.Transport{DialContext: namespace.Dialer(space),
		DisableKeepAlives: true}}
	return wait.AnswersOK(ctx, client, "http://"+agentHTTPAddress+"/readyz")
}

// Describe says in a line what a lab is like, and whether it is ready now.
func Describe(ctx context.Context, name string) (string, error) {
	s, err := readState(name)
	if err != nil {
		return "", err
	}
	return s.describe(ctx), nil
}

func stateDir(lab string) string { return filepath.Join(stateRoot, lab) }

// LogFile is where a lab that runs in the background writes its output.
func LogFile(name string) string { return stateDir(name) + ".log" }

func readState(lab string) (state, error) {
	var s state
	text, err := os.ReadFile(filepath.Join(stateDir(lab), stateFile))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if errors.Is(err, os.ErrNotExist) {
		return state{}, fmt.Errorf("lab %s: %w", lab, ErrNoLab)
	}
	if err != nil {
		return state{}, fmt.Errorf("reading the state of lab %s: %w", lab, err)
	}
	return s, nil
}

// ErrNoLab says that there is no lab of a name.
var ErrNoLab = errors.New("there is no such lab")

func (s state) write() error {
	return replace.WithJSON(filepath.Join(stateDir(s.Name), stateFile), s)
}

// List returns the names of all labs of this machine, also of those whose process has died.
func List() ([]string, error) {
	entries, err := os.ReadDir(stateRoot)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && checkName(entry.Name()) == nil {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
