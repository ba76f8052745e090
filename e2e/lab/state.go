package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	Name       string   `json:"name"`
	Families   Families `json:"families"`
	Nodes      int      `json:"nodes"`
	Kubectl    string   `json:"kubectl,omitempty"`
	Agent      string   `json:"agent,omitempty"` // the program
	Supervisor int      `json:"supervisor"`      // process that called Up
	Started    string   `json:"started"`         // when that process was started
	Ready      bool     `json:"ready"`
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
	return writeJSON(filepath.Join(stateDir(s.Name), stateFile), s)
}

// writeJSON replaces a file as a whole.
func writeJSON(file string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
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
