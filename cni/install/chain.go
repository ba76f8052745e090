package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
)

// Others chain plugins to ours: a mesh's installer, for one, writes its own behind the plugins of
// the first configuration.

const (
	// othersEnding is the ending of the file in which RemoveConflist keeps others' plugins.
	othersEnding = ".others"
	// mostChained and mostConflist bound what is kept of a file that others may have written.
	mostChained  = 16
	mostConflist = 64 << 10
)

// chain is the content of a configuration file of ours.
type chain struct {
	exists   bool
	content  []byte
	appended []json.RawMessage // plugins behind ours
	problems []string
}

// readChain reads a configuration of ours. What it can't read counts as missing, and is a problem.
func readChain(path string) chain {
	info, err := os.Lstat(path)
	if err != nil {
		return chain{}
	}
	c := chain{exists: true}
	if !info.Mode().IsRegular() || info.Size() > mostConflist {
		c.problemf("it isn't a file of at most %d bytes", mostConflist)
		return c
	}
	if c.content, err = os.ReadFile(path); err != nil {
		c.problemf("it can't be read: %v", err)
		return c
	}
	if info.Mode() != conflistMode {
		c.problemf("its mode is %s, want %s", info.Mode(), conflistMode)
	}
	var list struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(c.content, &list); err != nil {
		c.problemf("it isn't a network configuration list: %v", err)
		return c
	}
	c.divide(list.Plugins)
	return c
}

// divide takes what stands behind our plugin.
func (c *chain) divide(plugins []json.RawMessage) {
	ours := -1
	for i, p := range plugins {
		kind := typeOf(p)
		switch {
		case kind == PluginName && ours < 0:
			ours = i
		case ours < 0:
			c.problemf("plugin %.50q stands before sluice", kind)
		case kind == "" || kind == PluginName || len(c.appended) == mostChained:
			c.problemf("plugins[%d] of type %.50q: expected a type of its own, and at most %d "+
				"behind sluice", i, kind, mostChained)
		default:
			c.appended = append(c.appended, p)
		}
	}
	if ours < 0 {
		c.problemf("plugin sluice isn't in it")
	}
}

// typeOf is the type of a plugin, or nothing.
func typeOf(plugin json.RawMessage) string {
	var p struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(plugin, &p) != nil {
		return ""
	}
	return p.Type
}

func (c *chain) problemf(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// exclude leaves out what others appended.
func (c *chain) exclude() {
	for _, kind := range c.types() {
		c.problemf("plugin %.50q stands behind sluice", kind)
	}
	c.appended = nil
}

func (c *chain) types() (out []string) {
	for _, p := range c.appended {
		out = append(out, typeOf(p))
	}
	return out
}

// says reports whether the file means the same as content, and its readers can read it.
func (c *chain) says(content []byte) bool {
	if !c.exists || len(c.problems) > 0 {
		return false
	}
	is, isErr := parseJSON(c.content)
	want, wantErr := parseJSON(content)
	return isErr == nil && wantErr == nil && reflect.DeepEqual(is, want)
}

// wrong describes, for people, what was wrong with a file; it is empty where there was no file.
func (c *chain) wrong() string {
	switch {
	case !c.exists:
		return ""
	case len(c.problems) == 0:
		return "its settings were others"
	}
	const few = 5
	return strings.Join(c.problems[:min(few, len(c.problems))], "; ")
}

func parseJSON(data []byte) (out any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&out)
	return out, err
}
