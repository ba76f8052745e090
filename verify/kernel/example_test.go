package kernel_test

import (
	"fmt"

	"github.com/sluice-net/sluice/verify/kernel"
)

// Regions are sets of protocols and ports.
func ExampleRegion() {
	const tcp = 6
	allowed := kernel.Ports(tcp, 80, 90).Or(kernel.Protocol(1))
	denied := kernel.Everything().Minus(allowed)
	fmt.Println(allowed)
	fmt.Println(allowed.Minus(kernel.Ports(tcp, 81, 89)))
	fmt.Println(allowed.And(denied).Empty(), denied.Contains(kernel.Ports(tcp, 79, 79)))
	// Output:
	// ICMP, TCP 80-90
	// ICMP, TCP 80, TCP 90
	// true true
}
