// Package podprogram is what the lab and the program that it runs in pods (cmd/labpod) say to each
// other: the program's arguments, and the reports that it writes to its standard output, each a
// line of JSON.
package podprogram

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/test/probe"
)

// Flags of the program.
const (
	NameFlag         = "name"          // what servers answer with
	ServeFlag        = "serve"         // a Port; may be repeated
	FirstConnectFlag = "first-connect" // a Target
)

// Report is one line of the program's output. One field is set.
type Report struct {
	Serving      bool          `json:"serving,omitempty"` // all ports are open
	FirstConnect *FirstConnect `json:"firstConnect,omitempty"`
}

// FirstConnect is the outcome of the connection that the program began with.
type FirstConnect struct {
	OK       bool   `json:"ok"`
	Result   string `json:"result"`   // the reply, or why there was none
	Attempts int    `json:"attempts"` // connections that were started
}

// Port is what the program serves, in text "tcp/80".
type Port struct {
	Protocol probe.Protocol `json:"protocol"`
	Number   uint16         `json:"port"`
}

// String returns the port as ParsePort reads it.
func (p Port) String() string { return fmt.Sprintf("%s/%d", p.Protocol, p.Number) }

// ParsePort reads "tcp/80".
func ParsePort(text string) (Port, error) {
	protocol, number, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return Port{}, fmt.Errorf("port %q: expected a protocol and a number, such as tcp/80", text)
	}
	return Port{Protocol: probe.Protocol(protocol), Number: uint16(n)}, nil
}

// Target is where the first connection goes, in text "tcp://10.244.1.2:80".
type Target struct {
	Protocol probe.Protocol
	Address  netip.AddrPort
}

// ParseTarget reads "tcp://10.244.1.2:80" or "udp://[fd00::2]:53".
func ParseTarget(text string) (Target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %w", text, err)
	}
	address, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %w", text, err)
	}
	protocol := probe.Protocol(u.Scheme)
	if protocol != probe.TCP && protocol != probe.UDP && protocol != probe.SCTP {
		return Target{}, fmt.Errorf("target %q: expected tcp, udp or sctp", text)
	}
	return Target{Protocol: protocol, Address: address}, nil
}
