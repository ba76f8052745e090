package preflight

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mostConfiguration bounds what is read of a configuration, in bytes: anybody may have written it.
const mostConfiguration = 64 << 10

// isMultus says whether a network configuration is one of Multus, which wires nothing itself and
// gives pods the network that it is told. A file that can't be read isn't one.
func isMultus(path string) bool {
	// without waiting for a writer, should it be a FIFO
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	content, err := io.ReadAll(io.LimitReader(f, mostConfiguration+1))
	return err == nil && len(content) <= mostConfiguration && namesMultus(content)
}

// namesMultus says whether the plugin of a configuration, or the first of a list, is Multus: whole,
// or the part of it that asks its daemon.
func namesMultus(configuration []byte) bool {
	type plugin struct {
		Type string `json:"type"`
	}
	var c struct {
		plugin
		Plugins []plugin `json:"plugins"`
	}
	if json.Unmarshal(configuration, &c) != nil {
		return false
	}
	if len(c.Plugins) > 0 {
		c.plugin = c.Plugins[0]
	}
	return c.Type == "multus" || c.Type == "multus-shim"
}
