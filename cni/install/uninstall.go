package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
)

// The functions below take the pods' side of Sluice off a node for good, without a running server.
// They work in the network namespace of the calling thread. A repeated call is no error.

// PodsLeft names the pods that still have their link, as namespace/name, sorted. A link that is
// down and has no record isn't a pod's any more: its DEL didn't finish.
func PodsLeft(stateDir string) ([]string, error) {
	attachments, _, _ := cni.OpenRecords(stateDir).ReadAll() // unreadable records say nothing
	return podlink.PodsWithLinks(attachments)
}

// RemoveLinks removes the links of all pods, live or dead, their shaping devices, and the routes to
// pods.
func RemoveLinks() error { return podlink.RemoveAll() }

// RemoveState removes what a server keeps in its state directory, and the files there that the
// caller names. It removes the directory too, if that is empty then and no mount point, as it is in
// a container.
func RemoveState(stateDir string, others ...string) error {
	r := cni.OpenRecords(stateDir)
	r.RemoveUnfinished()
	files := r.Files()
	for _, name := range others {
		files = append(files, filepath.Join(stateDir, name))
	}
	files = append(files, filepath.Join(stateDir, cni.SocketName))
	var errs []error
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing the agent's state: %w", err))
		}
	}
	for _, dir := range []string{r.Dir(), stateDir} {
		if err := removeEmptyDir(dir); err != nil {
			errs = append(errs, fmt.Errorf("removing the agent's state: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeEmptyDir removes a directory, unless it isn't empty or is a mount point, also in a
// read-only container.
func removeEmptyDir(dir string) error {
	err := unix.Rmdir(dir)
	if slices.Contains([]error{unix.ENOENT, unix.ENOTEMPTY, unix.EBUSY, unix.EROFS}, err) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// PluginUsers names the network configurations of others in a runtime's directory that use the
// plugin, for instance in mode "policy". Without its program none of their pods starts or ends.
func PluginUsers(confDir string) ([]string, error) {
	entries, err := os.ReadDir(confDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for other network configurations: %w", err)
	}
	var users []string
	for _, entry := range entries {
		name := entry.Name()
		if name == ConflistName || entry.IsDir() ||
			!slices.Contains(configurationEndings(), filepath.Ext(name)) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(confDir, name))
		if err != nil {
			return nil, fmt.Errorf("reading another network configuration: %w", err)
		}
		var content any
		// a runtime reads only JSON
		if json.Unmarshal(data, &content) == nil && namesPlugin(content) {
			users = append(users, name)
		}
	}
	return users, nil
}

// namesPlugin reports whether the plugin is the type of an object in there, also of a delegate.
func namesPlugin(content any) bool {
	switch content := content.(type) {
	case map[string]any:
		if kind, _ := content["type"].(string); strings.TrimSpace(kind) == PluginName {
			return true
		}
		return slices.ContainsFunc(slices.Collect(maps.Values(content)), namesPlugin)
	case []any:
		return slices.ContainsFunc(content, namesPlugin)
	}
	return false
}
