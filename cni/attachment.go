package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/internal/names"
)

const interfaceDigits = 11

// An Attachment is one pod's place in the network of this node. Its identity and its addresses
// don't change while it exists; the rest is as its latest ADD said.
type Attachment struct {
	ContainerID string `json:"containerID"` // of the pod's sandbox
	IfName      string `json:"ifName"`      // inside the pod

	PodNamespace string `json:"podNamespace"`
	PodName      string `json:"podName"`
	PodUID       string `json:"podUID"`

	// the host end; made after Attach returns, so it may not exist
	Interface string `json:"interface"`
	// at most one of each family, in the order of the node's podCIDRs
	Addresses []netip.Addr `json:"addresses"`
	MTU       int          `json:"mtu"` // bytes; 0: the kernel's default

	// the name of its network configuration; empty in records of older versions
	Network string `json:"network,omitempty"`
	// path of the sandbox's network namespace, as ADD got it
	Netns string `json:"netns,omitempty"`
	// NetnsInode is that namespace's inode number, which distinguishes it from others.
	NetnsInode uint64 `json:"netnsInode,omitempty"`

	HostPorts []HostPort `json:"hostPorts,omitempty"` // of the node, that lead to the pod
	Bandwidth Bandwidth  `json:"bandwidth,omitzero"`

	// PolicyOnly: another plugin wired the pod. Interface is empty then, and Addresses are that
	// plugin's.
	PolicyOnly bool `json:"policyOnly,omitempty"`
}

// ID names the attachment on this node: the same container can have several interfaces.
func (a Attachment) ID() string { return AttachmentID(a.ContainerID, a.IfName) }

// validate reports whether an attachment can be one that a server made.
func (a Attachment) validate() error {
	request := AddRequest{
		ContainerID: a.ContainerID, IfName: a.IfName, PodNamespace: a.PodNamespace,
		PodName: a.PodName, PodUID: a.PodUID,
		Network: a.Network, Netns: a.Netns, HostPorts: a.HostPorts, Bandwidth: a.Bandwidth,
		PolicyOnly: a.PolicyOnly,
	}
	if a.PolicyOnly {
		request.Addresses = a.Addresses
	}
	if err := request.Validate(); err != nil {
		return err
	}
	if a.Interface != request.HostInterface() {
		return fmt.Errorf("interface %s isn't the pod's", Quote(a.Interface))
	}
	if err := ValidateAddresses(a.Addresses); err != nil {
		return err
	}
	return ValidateMTU(a.MTU, Has6(a.Addresses))
}

// HostMAC is the hardware address of the host end: always the same for an attachment, and different
// for each attachment. It identifies the attachment of a link, whose name identifies only the pod.
func (a Attachment) HostMAC() net.HardwareAddr { return hardwareAddr(a.ID(), "host") }

// PodMAC is the hardware address of the pod's end.
func (a Attachment) PodMAC() net.HardwareAddr { return hardwareAddr(a.ID(), "pod") }

// AttachmentID is the ID of the attachment of a container's interface.
func AttachmentID(containerID, ifName string) string { return containerID + "/" + ifName }

// InterfaceName is the name of the host end of a pod's interface: the prefix and 11 hex digits, the
// most the kernel allows.
func InterfaceName(podNamespace, podName, ifName string) string {
	sum := sha256.Sum256([]byte(podNamespace + "/" + podName + "/" + ifName))
	return names.PodLink + hex.EncodeToString(sum[:])[:interfaceDigits]
}

// IsInterfaceName reports whether name can be one that InterfaceName made.
func IsInterfaceName(name string) bool {
	digits, ok := strings.CutPrefix(name, names.PodLink)
	return ok && len(digits) == interfaceDigits && strings.Trim(digits, "0123456789abcdef") == ""
}

// hardwareAddr is a locally administered unicast address for one end of the attachment's pair.
func hardwareAddr(id, end string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(id + "/" + end))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// SingleHost is the prefix that holds addr alone.
func SingleHost(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// Has6 reports whether there is an IPv6 address.
func Has6(addrs []netip.Addr) bool { return slices.ContainsFunc(addrs, netip.Addr.Is6) }

// PodLabel is what people call a pod, cut to what the kernel takes as the alias of a link.
func PodLabel(podNamespace, podName string) string {
	const maxAlias = 255 // IFALIASZ without its final zero
	label := podNamespace + "/" + podName
	return strings.Clone(label[:min(len(label), maxAlias)])
}
