package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
)

// runtimeConfig is what a runtime adds for the plugin's capabilities
// (https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md).
type runtimeConfig struct {
	PortMappings []struct {
		HostPort      numeral `json:"hostPort"`
		ContainerPort numeral `json:"containerPort"`
		Protocol      string  `json:"protocol"`
		HostIP        string  `json:"hostIP"`
	} `json:"portMappings"`
	Bandwidth struct {
		IngressRate  numeral `json:"ingressRate"`
		IngressBurst numeral `json:"ingressBurst"`
		EgressRate   numeral `json:"egressRate"`
		EgressBurst  numeral `json:"egressBurst"`
	} `json:"bandwidth"`
}

// numeral is a JSON value as it was written, so that an error about an invalid number can name it
// and its place. Absent and null are 0.
type numeral string

// UnmarshalJSON implements json.Unmarshaler.
func (n *numeral) UnmarshalJSON(text []byte) error {
	if *n = numeral(text); *n == "null" {
		*n = ""
	}
	return nil
}

// upTo reads a whole number from 0 to most.
func (n numeral) upTo(most uint64, field, want string) (uint64, error) {
	if n == "" {
		return 0, nil
	}
	value, err := strconv.ParseUint(string(n), 10, 64)
	if err != nil || value > most {
		return 0, fmt.Errorf("%s: %s, want %s", field, clip(string(n)), want)
	}
	return value, nil
}

// clip makes JSON of others fit for a log line. Its only control characters are JSON's white space.
func clip(value string) string {
	const enough = 100
	value = strings.Join(strings.Fields(strings.ToValidUTF8(value, "?")), " ")
	if len(value) <= enough {
		return value
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(value[:enough], ""), len(value))
}

// parseRuntimeConfig checks what a runtime asks for. Errors name the first invalid field, its
// value, and what it may be. An absent field asks for nothing.
func parseRuntimeConfig(raw json.RawMessage) ([]cni.HostPort, cni.Bandwidth, error) {
	if len(raw) == 0 {
		return nil, cni.Bandwidth{}, nil
	}
	var config runtimeConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, cni.Bandwidth{}, types.NewError(types.ErrDecodingFailure,
			"decoding runtimeConfig", err.Error())
	}
	ports, portsErr := config.hostPorts()
	bandwidth, bandwidthErr := config.bandwidth()
	if err := errors.Join(portsErr, bandwidthErr); err != nil {
		return nil, cni.Bandwidth{}, types.NewError(types.ErrInvalidNetworkConfig,
			"runtimeConfig asks for what can't be", err.Error())
	}
	return ports, bandwidth, nil
}

func (c runtimeConfig) hostPorts() ([]cni.HostPort, error) {
	const want = "1 to 65535"
	var ports []cni.HostPort
	for i, m := range c.PortMappings {
		field := fmt.Sprintf("portMappings[%d]", i)
		hostPort, err := m.HostPort.upTo(math.MaxUint16, field+".hostPort", want)
		if err != nil {
			return nil, err
		}
		containerPort, err := m.ContainerPort.upTo(math.MaxUint16, field+".containerPort", want)
		if err != nil {
			return nil, err
		}
		p := cni.HostPort{HostPort: uint16(hostPort), ContainerPort: uint16(containerPort),
			Protocol: strings.ToLower(m.Protocol)}
		if m.HostIP != "" {
			addr, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, fmt.Errorf("%s.hostIP: %s, want an IP address", field,
					cni.Quote(m.HostIP))
			}
			p.HostIP = addr.Unmap()
		}
		ports = append(ports, p)
	}
	return ports, cni.ValidateHostPorts(ports)
}

func (c runtimeConfig) bandwidth() (b cni.Bandwidth, err error) {
	for _, f := range []struct {
		name, want string
		from       numeral
		into       *uint64
	}{
		{"ingressRate", "bits per second", c.Bandwidth.IngressRate, &b.IngressRate},
		{"ingressBurst", "bits", c.Bandwidth.IngressBurst, &b.IngressBurst},
		{"egressRate", "bits per second", c.Bandwidth.EgressRate, &b.EgressRate},
		{"egressBurst", "bits", c.Bandwidth.EgressBurst, &b.EgressBurst},
	} {
		want := "a whole number of " + f.want + " below 2^64"
		if *f.into, err = f.from.upTo(math.MaxUint64, "bandwidth."+f.name, want); err != nil {
			return cni.Bandwidth{}, err
		}
	}
	return b, b.Validate()
}
