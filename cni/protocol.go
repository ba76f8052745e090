package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
)

// The paths of version 1 of the protocol: HTTP/1.1 on a unix socket, JSON bodies. An answer other
// than 200 has a types.Error of the CNI library as its body, with a code of the CNI specification.
const (
	PathAdd    = "/v1/add"    // POST an AddRequest, get an AddAnswer
	PathDel    = "/v1/del"    // POST a DelRequest, get a DelAnswer
	PathCheck  = "/v1/check"  // POST a CheckRequest, get a CheckAnswer
	PathStatus = "/v1/status" // POST a StatusRequest, get a StatusAnswer
)

// The paths that the agent adds for people, to GET. An error of theirs is plain text.
const (
	PathWhy     = "/v1/why"
	PathWhyLive = "/v1/why-live"
	PathVerify  = "/v1/verify"
)

// MaxRequestBytes bounds what an agent reads of a request.
const MaxRequestBytes = 64 << 10

const (
	maxAnswerBytes = 4 << 20

	// maxContainerID: with the interface's name it makes a file name, of which the kernel takes 255
	// bytes
	maxContainerID = 200
	maxNamespace   = 63
	maxPodName     = 253
	maxPodUID      = 128
	maxNetns       = 4095

	minMTU4, minMTU6, maxMTU = 576, 1280, 65535 // RFC 791, RFC 8200
)

// Codes that the library has no name for: one of the CNI specification, for a plugin that can't
// serve ADD, and our own.
const (
	CodeNotAvailable     = 50
	CodeDiffers          = 100 // CHECK: something isn't as ADD left it
	CodeHostPortTaken    = 101 // ADD: a host port is another pod's
	CodeHostPortReserved = 102 // ADD: a host port is the node's
)

// AddRequest asks for a place in the network for one interface of a pod. The first five fields are
// required.
type AddRequest struct {
	ContainerID  string `json:"containerID"`
	IfName       string `json:"ifName"`
	PodNamespace string `json:"podNamespace"`
	PodName      string `json:"podName"`
	PodUID       string `json:"podUID"`

	Network string `json:"network,omitempty"` // the name of its configuration
	// path of the pod's network namespace on the host
	Netns      string     `json:"netns,omitempty"`
	NetnsInode uint64     `json:"netnsInode,omitempty"` // of that namespace
	HostPorts  []HostPort `json:"hostPorts,omitempty"`
	Bandwidth  Bandwidth  `json:"bandwidth,omitzero"`

	PolicyOnly bool         `json:"policyOnly,omitempty"` // another plugin has wired the pod
	Addresses  []netip.Addr `json:"addresses,omitempty"`  // that it gave, with PolicyOnly only
}

// AddAnswer says how to wire the pod. With PolicyOnly it says the addresses only.
type AddAnswer struct {
	// single hosts, at most one of each family
	Addresses []netip.Prefix `json:"addresses"`
	Interface string         `json:"interface"`     // the host end
	HostMAC   string         `json:"hostMAC"`       // of the host end
	PodMAC    string         `json:"podMAC"`        // of the pod's end
	MTU       int            `json:"mtu,omitempty"` // bytes; 0: the kernel's default
	// what the node uses towards the pod
	NodeAddresses []netip.Addr `json:"nodeAddresses,omitempty"`
}

// DelRequest gives a place up. Both fields are required. An attachment that isn't known is no
// error.
type DelRequest struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// DelAnswer says what is left to do.
type DelAnswer struct {
	// the pod's link is down, and the agent removes it; otherwise the plugin has to look for one
	IsCut bool `json:"isCut,omitempty"`
}

// CheckRequest asks how an attachment should be wired, and whether its policy is in the kernel.
// Every field is required.
type CheckRequest struct {
	ContainerID string       `json:"containerID"`
	IfName      string       `json:"ifName"`
	Addresses   []netip.Addr `json:"addresses"` // that the runtime thinks it has
}

// CheckAnswer says how the pod should be wired, if it is known, and the differences that the agent
// sees.
type CheckAnswer struct {
	AddAnswer

	Differences []string `json:"differences,omitempty"` // a line each
}

// StatusRequest asks whether ADD can work.
type StatusRequest struct{}

// StatusAnswer says that ADD can work, and with what.
type StatusAnswer struct {
	PodCIDRs    []netip.Prefix `json:"podCIDRs"`
	Attachments int            `json:"attachments"`
}

// Validate returns an error of the CNI specification for the first invalid field.
func (r AddRequest) Validate() error {
	if err := ValidateID(r.ContainerID, r.IfName); err != nil {
		return err
	}
	switch {
	case !isName(r.PodNamespace, maxNamespace, "-"):
		return invalidArgument("pod namespace", r.PodNamespace)
	case !isName(r.PodName, maxPodName, "-."):
		return invalidArgument("pod name", r.PodName)
	case !isName(strings.ToLower(r.PodUID), maxPodUID, "-_."):
		return invalidArgument("pod UID", r.PodUID)
	}
	return r.validateOptions()
}

func (r AddRequest) validateOptions() error {
	if r.Network != "" {
		if err := utils.ValidateNetworkName(r.Network); err != nil {
			return types.NewError(err.Code, err.Msg, Quote(r.Network))
		}
	}
	if r.Netns != "" && !filepath.IsAbs(r.Netns) || strings.ContainsRune(r.Netns, 0) ||
		len(r.Netns) > maxNetns {
		return invalidArgument("network namespace", r.Netns)
	}
	err := errors.Join(ValidateHostPorts(r.HostPorts), r.Bandwidth.Validate())
	if err == nil && r.PolicyOnly {
		err = ValidateAddresses(r.Addresses)
	}
	switch {
	case err != nil:
	case r.PolicyOnly && (len(r.HostPorts) > 0 || r.Bandwidth != Bandwidth{}):
		err = errors.New("mode policy: host ports and bandwidth belong to who wires the pod")
	case !r.PolicyOnly && len(r.Addresses) > 0:
		err = errors.New("addresses are given here")
	}
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "the request can't be served",
			err.Error())
	}
	return nil
}

// HostInterface is the name of the host end, or "" where it isn't ours.
func (r AddRequest) HostInterface() string {
	if r.PolicyOnly {
		return ""
	}
	return InterfaceName(r.PodNamespace, r.PodName, r.IfName)
}

// Validate is as AddRequest's.
func (r CheckRequest) Validate() error { return ValidateID(r.ContainerID, r.IfName) }

// Validate is as AddRequest's.
func (r DelRequest) Validate() error { return ValidateID(r.ContainerID, r.IfName) }

// Validate finds nothing wrong.
func (StatusRequest) Validate() error { return nil }

// ValidateID returns an error of the CNI specification for an invalid container ID or interface
// name.
func ValidateID(containerID, ifName string) error {
	if len(containerID) > maxContainerID {
		return invalidArgument("container ID", containerID)
	}
	if err := utils.ValidateContainerID(containerID); err != nil {
		return types.NewError(err.Code, err.Msg, Quote(containerID))
	}
	if err := utils.ValidateInterfaceName(ifName); err != nil {
		return types.NewError(err.Code, err.Msg, Quote(ifName))
	}
	for _, c := range []byte(ifName) {
		// The kernel takes % as a pattern. The name is also part of a file name.
		if c <= ' ' || c > '~' || c == '%' {
			return invalidArgument("interface name", ifName)
		}
	}
	return nil
}

// isName reports whether s is made of lower case letters, digits and, between these, of the
// characters in middle.
func isName(s string, maxBytes int, middle string) bool {
	if s == "" || len(s) > maxBytes {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && i < len(s)-1 && strings.IndexByte(middle, c) >= 0:
		default:
			return false
		}
	}
	return true
}

func invalidArgument(what, value string) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "invalid "+what, Quote(value))
}

// Quote makes a request's text fit for a log line.
func Quote(value string) string {
	const enough = 100
	if len(value) > enough {
		return fmt.Sprintf("%q... (%d bytes)", value[:enough], len(value))
	}
	return fmt.Sprintf("%q", value)
}

// ValidateAddresses accepts one or two unicast addresses, of different families.
func ValidateAddresses(addrs []netip.Addr) error {
	if len(addrs) == 0 || len(addrs) > 2 || len(addrs) == 2 && addrs[0].Is4() == addrs[1].Is4() {
		return fmt.Errorf("addresses %s, want at most one of each family", addrs)
	}
	for _, addr := range addrs {
		if !addr.IsGlobalUnicast() || addr.Is4In6() || addr.Zone() != "" {
			return fmt.Errorf("address %s", addr)
		}
	}
	return nil
}

// ValidateMTU accepts 0, and the MTUs of a pod's link, with IPv6 or without.
func ValidateMTU(mtu int, has6 bool) error {
	if mtu == 0 {
		return nil
	}
	if mtu < minMTU4 || has6 && mtu < minMTU6 || mtu > maxMTU {
		return fmt.Errorf("MTU %d", mtu)
	}
	return nil
}

// DecodeRequest reads one JSON value with known fields only, as the agent can't do what it doesn't
// know.
func DecodeRequest(body []byte, into any) error {
	if !utf8.Valid(body) {
		return errors.New("not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
