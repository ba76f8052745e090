package cni_test

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/cni"
)

// An attachment, and what follows from its names: its ID, its link and the hardware addresses.
func ExampleAttachment() {
	a := cni.Attachment{ContainerID: "4d1f", IfName: "eth0", PodNamespace: "dev", PodName: "web-0",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}
	fmt.Println(a.ID())
	fmt.Println(cni.InterfaceName(a.PodNamespace, a.PodName, a.IfName), a.HostMAC(), a.PodMAC())
	// Output:
	// 4d1f/eth0
	// slup200e74a8cee be:15:83:fd:17:0a b2:4a:5e:d7:ba:5f
}

// Two host ports that lead the same packets to different ports.
func ExampleValidateHostPorts() {
	node := netip.MustParseAddr("192.0.2.1")
	err := cni.ValidateHostPorts([]cni.HostPort{
		{HostIP: node, HostPort: 80, ContainerPort: 8080, Protocol: "tcp"},
		{HostIP: node, HostPort: 80, ContainerPort: 9090, Protocol: "tcp"},
	})
	fmt.Println(err)
	// Output:
	// portMappings[1]: tcp 192.0.2.1:80 to port 9090, want port 8080 as in portMappings[0]
}
