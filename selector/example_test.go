package selector_test

import (
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/selector"
)

// An ipBlock with an exception, as the ranges that are left of it.
func ExampleSubtract() {
	block := netip.MustParsePrefix("10.0.0.0/24")
	for _, r := range selector.Subtract(block,
		[]netip.Prefix{netip.MustParsePrefix("10.0.0.64/26")}) {
		fmt.Println(r)
	}
	// Output:
	// 10.0.0.0-10.0.0.63
	// 10.0.0.128-10.0.0.255
}
