package lab

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
)

// Outside is the place beyond the pod network.
const Outside = "outside"

// DefaultName is the name of a lab that isn't given one.
const DefaultName = "lab"

// Families says which address families pods and nodes have.
type Families string

// The families of a lab.
const (
	DualStack Families = "dual"
	IPv4      Families = "ipv4"
	IPv6      Families = "ipv6"
)

// Options say what a lab is like. The zero value is a lab named "lab" with two nodes, dual stack.
type Options struct {
	Name     string   // lower case letters, digits and hyphens, at most 20; DefaultName if empty
	Nodes    int      // 1 to 200; 2 if zero. Their names are node1, node2, ...
	Families Families // DualStack if empty

	// NoAgent leaves out the agent, and wires pods with the CNI project's ptp plugin. Nothing is enforced.
	NoAgent bool
	// AgentArgs are passed to every agent, behind the lab's own.
	AgentArgs []string
	// Progress gets lines for people, such as what is being built. It may be nil.
	Progress io.Writer
}

const maxNodes = 200

func (o Options) complete() (Options, error) {
	o.Name = cmp.Or(o.Name, DefaultName)
	o.Nodes = cmp.Or(o.Nodes, 2)
	o.Families = cmp.Or(o.Families, DualStack)
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if err := checkName(o.Name); err != nil {
		return Options{}, err
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return Options{}, fmt.Errorf("%d nodes: expected 1 to %d", o.Nodes, maxNodes)
	}
	if o.Families != DualStack && o.Families != IPv4 && o.Families != IPv6 {
		return Options{}, fmt.Errorf("address families %q: expected %s, %s or %s", o.Families, DualStack, IPv4, IPv6)
	}
	return o, nil
}

// checkName allows what can be part of a file's and a namespace's name.
func checkName(name string) error {
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`).MatchString(name) {
		return fmt.Errorf("lab name %q: expected up to 20 lower case letters, digits and hyphens", name)
	}
	return nil
}
