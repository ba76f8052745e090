package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/atomicfile"
)

// ConflistName sorts before the usual names of other networks' files, as a runtime takes the first.
const ConflistName = "05-sluice.conflist"

const conflistMode fs.FileMode = 0o644

// ConflistOptions say what is in the network configuration. The zero value is right for an ordinary
// node.
type ConflistOptions struct {
	Socket    string // of the agent; DefaultSocket if empty
	StateDir  string // of the agent; DefaultStateDir if empty
	Exclusive bool   // take out what others append to our configuration
}

// ConflistState is what Conflist found and did.
type ConflistState struct {
	Changed bool
	// Edited describes others' edits of our configuration that Conflist reverted; empty if there
	// were none.
	Edited string
	// Appended are the types of the plugins that others have put behind ours. Before are the files
	// that a runtime takes before ours, which so decide about the network.
	Appended, Before []string
}

// conflist is a network configuration list
// (https://github.com/containernetworking/cni/blob/main/SPEC.md, section 1).
type conflist struct {
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions,omitempty"`
	Name        string   `json:"name"`
	Plugins     []any    `json:"plugins"` // ours, then others' as they wrote them
}

type conflistPlugin struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
	Socket       string          `json:"socket,omitempty"`
	StateDir     string          `json:"stateDir,omitempty"`
}

// content is the file. Runtimes older than CNI 1.1 know no cniVersions, and refuse an unknown
// cniVersion. So cniVersion stays at one that all know, and cniVersions has the newer one for those
// that read it.
func (o ConflistOptions) content(appended []json.RawMessage) ([]byte, error) {
	const networkName, readByAll, newest = "sluice", "1.0.0", "1.1.0"
	plugin := conflistPlugin{Type: PluginName,
		Capabilities: map[string]bool{"portMappings": true, "bandwidth": true}}
	if o.Socket != cni.DefaultSocket {
		plugin.Socket = o.Socket
	}
	if o.StateDir != cni.DefaultStateDir {
		plugin.StateDir = o.StateDir
	}
	list := conflist{
		CNIVersion:  readByAll,
		CNIVersions: []string{readByAll, newest},
		Name:        networkName,
		Plugins:     []any{plugin},
	}
	for _, other := range appended {
		list.Plugins = append(list.Plugins, other)
	}
	data, err := json.MarshalIndent(list, "", "  ")
	return append(data, '\n'), err
}

// Conflist writes the network configuration into a runtime's directory (usually /etc/cni/net.d),
// which must exist, whole or not at all. A file with the right meaning is left alone, in any
// layout: some runtimes reload everything at each change. What others have put behind our plugin
// stays, in their order, unless the options say otherwise.
func Conflist(dir string, o ConflistOptions) (ConflistState, error) {
	path := filepath.Join(dir, ConflistName)
	found := readChain(path)
	if o.Exclusive {
		found.exclude()
	}
	state := ConflistState{Appended: found.types()}
	content, err := o.content(found.appended)
	if err != nil {
		return state, fmt.Errorf("writing the network configuration: %w", err)
	}
	if !found.says(content) {
		state.Edited = found.wrong()
		if state.Changed, err = replaceFile(path, content); err != nil {
			return state, fmt.Errorf("writing the network configuration %s: %w", path, err)
		}
	}
	if state.Changed {
		if err := removeUnfinished(dir); err != nil { // of an agent that died writing it
			return state, fmt.Errorf("writing the network configuration %s: %w", path, err)
		}
	}
	state.Before, _, err = Configurations(dir)
	return state, err
}

// RemoveConflist removes the network configuration from a runtime's directory, and unfinished files
// of it. A missing one is no error. Plugins that others had put behind ours are of no use without
// it. RemoveConflist keeps them in a file that no runtime reads, for another network's
// configuration; kept is its path, if there is one.
func RemoveConflist(dir string) (kept string, err error) {
	path := filepath.Join(dir, ConflistName)
	if appended := readChain(path).appended; len(appended) > 0 {
		kept = path + othersEnding
		content, err := json.MarshalIndent(map[string]any{"plugins": appended}, "", "  ")
		if err != nil {
			return "", fmt.Errorf("keeping what others appended to %s: %w", path, err)
		}
		if _, err := replaceFile(kept, append(content, '\n')); err != nil {
			return "", fmt.Errorf("keeping what others appended to %s: %w", path, err)
		}
	}
	if err := errors.Join(removeFile(path), removeUnfinished(dir)); err != nil {
		return kept, fmt.Errorf("removing the network configuration: %w", err)
	}
	return kept, nil
}

// configurationEndings are the endings of the files that runtimes read.
func configurationEndings() []string { return []string{".conf", ".conflist", ".json"} }

// Configurations are others' network configurations in a runtime's directory: those that it takes
// before ours, and those after. It takes the first of all files with these endings, in the order of
// their names. A missing directory is an error that is fs.ErrNotExist.
func Configurations(dir string) (before, after []string, err error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, nil, fmt.Errorf("looking for other network configurations: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case entry.IsDir() || !slices.Contains(configurationEndings(), filepath.Ext(name)):
		case name < ConflistName:
			before = append(before, name)
		case name > ConflistName:
			after = append(after, name)
		}
	}
	return before, after, nil
}

// replaceFile gives a file this content, readable by all, so that it survives a crash. It reports
// whether the file had to change.
func replaceFile(path string, content []byte) (changed bool, err error) {
	if isFile(path, content, conflistMode) {
		return false, nil
	}
	file := atomicfile.File{Path: path, Passing: unfinished, Mode: conflistMode}
	if err := file.Write(content); err != nil {
		return false, err
	}
	return true, nil
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
	return atomicfile.SyncDir(filepath.Dir(path))
}
