package lab

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"

	"github.com/sluice-net/sluice/e2e/lab/namespace"
)

// Outside is the place beyond the pod network.
const Outside = "outside"

// DefaultName is the name of a lab that isn't given one.
const DefaultName = "lab"

// Families says which address families there are.
type Families string

// The families of pods, or of the underlay.
const (
	DualStack Families = "dual"
	IPv4      Families = "ipv4"
	IPv6      Families = "ipv6"
)

// Backend is how the agents carry pods' packets between nodes.
type Backend string

// The backends of net-conf.json; DirectRouting is VXLAN with its key of that name on.
const (
	VXLAN         Backend = "vxlan"
	HostGW        Backend = "host-gw"
	DirectRouting Backend = "directrouting"
)

// RPFilter is the nodes' reverse path filter (net.ipv4.conf.all.rp_filter; RFC 3704), for all
// links. IPv6 has none.
type RPFilter string

// The reverse path filters, in the kernel 0, 2 and 1.
const (
	RPFilterOff    RPFilter = "off"
	RPFilterLoose  RPFilter = "loose"
	RPFilterStrict RPFilter = "strict"
)

func (f RPFilter) sysctls() []namespace.Sysctl {
	return namespace.ReversePath(map[RPFilter]int{RPFilterOff: 0, RPFilterStrict: 1,
		RPFilterLoose: 2}[f])
}

// Options say what a lab is like. The zero value is a lab named "lab" with two nodes on one subnet,
// dual stack, with VXLAN.
type Options struct {
	Name     string   // lower case letters, digits and hyphens, at most 20; DefaultName if empty
	Nodes    int      // 1 to 200; 2 if zero. Their names are node1, node2, ...
	Families Families // of pods; DualStack if empty

	Backend Backend // VXLAN if empty
	// of the nodes' addresses; Families if empty. Pods of a family that it lacks need a tunnel
	Underlay Families
	// of the underlay: 1, or 2 with a router between, and nodes on each in turn; 1 if zero
	Subnets  int
	RPFilter RPFilter // RPFilterOff if empty
	MTU      int      // bytes, of the underlay's links; 1500 if zero

	// DropPodSources has the switch drop what comes from a pod's address. An underlay that checks
	// sources does so.
	DropPodSources bool

	// NoAgent starts no agents, and wires pods with the CNI project's ptp plugin, unless another
	// configuration sorts first in a node's ConfDir. Plain routes lead to other nodes' pods,
	// whatever Backend says. Nothing is enforced, but where a test calls Node.StartAgent: that
	// agent leaves the network alone (--policy-only).
	NoAgent bool
	// AgentArgs are passed to every agent, behind the lab's own.
	AgentArgs []string
	// Progress gets lines for people, such as what is being built. It may be nil.
	Progress io.Writer
}

const (
	maxNodes   = 200
	defaultMTU = 1500
	minMTU     = 1280 + 70 // what IPv6 needs, in a tunnel over IPv6
	maxMTU     = 65535
)

// Check says whether there can be a lab like this, here and now, before anything is built for it.
func (o Options) Check() error {
	o, err := o.complete()
	switch {
	case err != nil:
		return err
	case os.Geteuid() != 0:
		return errors.New("a lab needs root, for network namespaces")
	}
	return checkFree(o.Name)
}

func (o Options) complete() (Options, error) {
	o.Name = cmp.Or(o.Name, DefaultName)
	o.Nodes = cmp.Or(o.Nodes, 2)
	o.Families = cmp.Or(o.Families, DualStack)
	o.Backend = cmp.Or(o.Backend, VXLAN)
	o.Underlay = cmp.Or(o.Underlay, o.Families)
	o.Subnets = cmp.Or(o.Subnets, 1)
	o.RPFilter = cmp.Or(o.RPFilter, RPFilterOff)
	o.MTU = cmp.Or(o.MTU, defaultMTU)
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if err := checkName(o.Name); err != nil {
		return Options{}, err
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return Options{}, fmt.Errorf("%d nodes: expected 1 to %d", o.Nodes, maxNodes)
	}
	if o.Subnets < 1 || o.Subnets > maxSubnets {
		return Options{}, fmt.Errorf("%d subnets: expected 1 or %d", o.Subnets, maxSubnets)
	}
	if o.MTU < minMTU || o.MTU > maxMTU {
		return Options{}, fmt.Errorf("an MTU of %d bytes: expected %d to %d", o.MTU, minMTU, maxMTU)
	}
	return o, errors.Join(
		oneOf("address families of pods", o.Families, DualStack, IPv4, IPv6),
		oneOf("address families of the underlay", o.Underlay, DualStack, IPv4, IPv6),
		oneOf("backend", o.Backend, VXLAN, HostGW, DirectRouting),
		oneOf("reverse path filter", o.RPFilter, RPFilterOff, RPFilterLoose, RPFilterStrict),
		o.checkReach(),
	)
}

// checkReach refuses what leaves pods on different nodes without a way to each other.
func (o Options) checkReach() error {
	who := "backend " + string(HostGW)
	switch {
	case o.NoAgent:
		who = "a lab without agents, which routes pods plainly,"
	case o.Backend != HostGW:
		return nil
	}
	if o.Subnets > 1 {
		return fmt.Errorf("%s reaches only nodes on the same subnet: expected 1 subnet, not %d",
			who, o.Subnets)
	}
	if o.Underlay != DualStack && o.Underlay != o.Families {
		return fmt.Errorf(
			"%s carries only the underlay's families (%s): expected no others for pods (%s)", who,
			o.Underlay, o.Families)
	}
	return nil
}

func oneOf[T ~string](what string, value T, allowed ...T) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s %q: expected one of %q", what, value, allowed)
}

// checkName allows what can be part of a file's and a namespace's name.
func checkName(name string) error {
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`).MatchString(name) {
		return fmt.Errorf("lab name %q: expected up to 20 lower case letters, digits and hyphens",
			name)
	}
	return nil
}
