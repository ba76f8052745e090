package cni

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// conflistName sorts before what other networks are usually called, as a runtime takes the first.
const conflistName = "05-sluice.conflist"

// ConflistOptions say what is in the network configuration. The zero value is right where nothing is out of the ordinary.
type ConflistOptions struct {
	Name       string // of the network; "sluice" by default
	CNIVersion string // of the CNI specification; "1.1.0" by default
	Socket     string // of the agent; DefaultSocket if empty
	StateDir   string // of the agent; DefaultStateDir if empty
}

// conflist is a network configuration list (https://github.com/containernetworking/cni/blob/main/SPEC.md, section 1).
type conflist struct {
	CNIVersion  string           `json:"cniVersion"`
	CNIVersions []string         `json:"cniVersions,omitempty"`
	Name        string           `json:"name"`
	Plugins     []conflistPlugin `json:"plugins"`
}

type conflistPlugin struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
	Socket       string          `json:"socket,omitempty"`
	StateDir     string          `json:"stateDir,omitempty"`
}

// content is the file. Runtimes of before CNI 1.1 know nothing of cniVersions and refuse a cniVersion that they don't know, so that one
// stays at what all read, and who knows more finds the newer one beside it.
func (o ConflistOptions) content() ([]byte, error) {
	const readByAll = "1.0.0"
	plugin := conflistPlugin{Type: "sluice", Capabilities: map[string]bool{"portMappings": true, "bandwidth": true}}
	if o.Socket != DefaultSocket {
		plugin.Socket = o.Socket
	}
	if o.StateDir != DefaultStateDir {
		plugin.StateDir = o.StateDir
	}
	list := conflist{
		CNIVersion: cmp.Or(o.CNIVersion, "1.1.0"),
		Name:       cmp.Or(o.Name, "sluice"),
		Plugins:    []conflistPlugin{plugin},
	}
	if list.CNIVersion == "1.1.0" {
		list.CNIVersions = []string{readByAll, list.CNIVersion}
		list.CNIVersion = readByAll
	}
	data, err := json.MarshalIndent(list, "", "  ")
	return append(data, '\n'), err
}

// InstallConflist writes the network configuration into a runtime's directory (usually /etc/cni/net.d), which must exist, whole or not at
// all. A file that is right already is left alone: some runtimes load everything anew at each change. SortedBefore names the files that a
// runtime takes before ours, and which so decide about the network.
func InstallConflist(dir string, o ConflistOptions) (changed bool, sortedBefore []string, err error) {
	content, err := o.content()
	if err != nil {
		return false, nil, fmt.Errorf("writing the network configuration: %w", err)
	}
	path := filepath.Join(dir, conflistName)
	if changed, err = replaceFile(path, content); err != nil {
		return false, nil, fmt.Errorf("writing the network configuration %s: %w", path, err)
	}
	if changed {
		if err := removeUnfinished(dir); err != nil { // of an agent that died writing it
			return true, nil, fmt.Errorf("writing the network configuration %s: %w", path, err)
		}
	}
	sortedBefore, err = configurationsBefore(dir)
	return changed, sortedBefore, err
}

// RemoveConflist removes the network configuration from a runtime's directory, and what is left of writing it. One that isn't there is no
// error.
func RemoveConflist(dir string) error {
	if err := errors.Join(removeFile(filepath.Join(dir, conflistName)), removeUnfinished(dir)); err != nil {
		return fmt.Errorf("removing the network configuration: %w", err)
	}
	return nil
}

// configurationEndings are those of the files that runtimes read.
func configurationEndings() []string { return []string{".conf", ".conflist", ".json"} }

// configurationsBefore are the files that a runtime takes first: it takes any with these endings, in the order of their names.
func configurationsBefore(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("looking for other network configurations: %w", err)
	}
	var before []string
	for _, entry := range entries {
		name := entry.Name()
		isConfiguration := slices.Contains(configurationEndings(), filepath.Ext(name))
		if name < conflistName && isConfiguration && !entry.IsDir() {
			before = append(before, name)
		}
	}
	return before, nil
}

// replaceFile gives a file this content, readable by all, and makes sure that it survives a crash. It tells whether it had to.
func replaceFile(path string, content []byte) (changed bool, err error) {
	const mode = 0o644
	if isFile(path, content, mode) {
		return false, nil
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, unfinished)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return false, err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return false, err
	}
	return true, syncDir(dir)
}

func isFile(path string, content []byte, mode fs.FileMode) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode {
		return false
	}
	now, err := os.ReadFile(path)
	return err == nil && bytes.Equal(now, content)
}

func removeFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a directory's entries last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
