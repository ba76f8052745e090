package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-net/sluice/e2e/internal/replace"
)

// netConf is flannel's net-conf.json, which agents read too.
type netConf struct {
	Network     string         `json:",omitempty"`
	EnableIPv4  bool           // true if absent
	EnableIPv6  bool           `json:",omitempty"`
	IPv6Network string         `json:",omitempty"`
	Backend     map[string]any // Type, and what it needs
}

// netConf is what the agents are to do at first.
func (o Options) netConf() netConf {
	c := netConf{EnableIPv4: o.Families != IPv6, EnableIPv6: o.Families != IPv4,
		Backend: map[string]any{"Type": string(o.Backend)}}
	if o.Backend == DirectRouting {
		c.Backend = map[string]any{"Type": string(VXLAN), "DirectRouting": true}
	}
	if c.EnableIPv4 {
		c.Network = podNetwork4.String()
	}
	if c.EnableIPv6 {
		c.IPv6Network = podNetwork6.String()
	}
	return c
}

// NetConf returns the name of the file that configures the pod network on all nodes, in the form of
// flannel's net-conf.json.
func (v *View) NetConf() string { return filepath.Join(v.dir, "net-conf.json") }

// SetNetConf replaces that file as a whole, by renaming another. Agents that run notice.
func (v *View) SetNetConf(text string) error {
	if err := replace.File(v.NetConf(), []byte(text)); err != nil {
		return fmt.Errorf("changing the pod network of lab %s: %w", v.name, err)
	}
	return nil
}

// EditNetConf lets edit change what the file says, with JSON's types: the key Backend, for example,
// has a map[string]any.
func (v *View) EditNetConf(edit func(conf map[string]any)) error {
	text, err := os.ReadFile(v.NetConf())
	if err != nil {
		return fmt.Errorf("reading the pod network of lab %s: %w", v.name, err)
	}
	var conf map[string]any
	if err := json.Unmarshal(text, &conf); err != nil {
		return fmt.Errorf("reading %s: %w", v.NetConf(), err)
	}
	edit(conf)
	if text, err = json.MarshalIndent(conf, "", "  "); err != nil {
		return fmt.Errorf("writing %s: %w", v.NetConf(), err)
	}
	return v.SetNetConf(string(text) + "\n")
}
