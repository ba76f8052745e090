package overlay

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/internal/names"
)

// Backend is how packets get from node to node.
type Backend string

// The backends. With DirectRouting, VXLAN is for peers on other subnets only.
const (
	VXLAN  Backend = "vxlan"
	HostGW Backend = "host-gw"
)

const (
	defaultVNI  = 1
	defaultPort = 8472 // what Linux used before the IANA gave VXLAN a port, and flannel uses

	minMTU4 = 576  // RFC 791: every host takes this much
	minMTU6 = 1280 // RFC 8200: without it the kernel turns IPv6 off on a link
	maxMTU  = 65535

	// overhead4 and overhead6 are what a tunnel adds to a packet: Ethernet (14), VXLAN (8), UDP
	// (8), and IPv4 (20) or IPv6 (40).
	overhead4 = 50
	overhead6 = 70
)

// Config is the configuration of the pod network, the same on all nodes. ParseConfig makes one that
// makes sense.
type Config struct {
	Network     netip.Prefix // of all IPv4 pods; the zero Prefix: no IPv4 pods
	IPv6Network netip.Prefix // of all IPv6 pods; the zero Prefix: no IPv6 pods

	Backend Backend
	VNI     uint32 // of the tunnel
	Port    uint16 // of the tunnel, UDP
	// bytes of the largest packet to put on the underlay; 0: what the underlay's link takes
	MTU           int
	DirectRouting bool

	// Underlay is the family that the tunnel uses. With AnyFamily all nodes derive it from the
	// Nodes. It isn't in net-conf.json.
	Underlay Family
}

// network is where pods of a family are, if that family is on.
func (c Config) network(f Family) netip.Prefix {
	if f == IPv4 {
		return c.Network
	}
	return c.IPv6Network
}

// Device is the name of the tunnel device, which doesn't exist with HostGW.
func (c Config) Device() string { return fmt.Sprintf("%s%d", names.Tunnel, c.VNI) }

// ConfigError says which key of a configuration was refused, and why.
type ConfigError struct {
	Key   string // such as Backend.VNI
	Value string // as written
	Want  string // what was expected
}

func (e *ConfigError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: expected %s", e.Key, e.Want)
	}
	return fmt.Sprintf("%s: %s: expected %s", e.Key, e.Value, e.Want)
}

// overhead is what a tunnel adds to each packet, in bytes.
func overhead(underlay Family) int {
	if underlay == IPv4 {
		return overhead4
	}
	return overhead6
}
