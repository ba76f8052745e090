package overlay_test

import (
	"fmt"

	"github.com/sluice-net/sluice/overlay"
)

// flannel's net-conf.json, and what is said of a value that can't be.
func ExampleParseConfig() {
	c, err := overlay.ParseConfig(
		[]byte(`{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`))
	fmt.Println(c.Network, c.Device(), err)
	_, err = overlay.ParseConfig(
		[]byte(`{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 70000}}`))
	fmt.Println(err)
	// Output:
	// 10.244.0.0/16 sluice.1 <nil>
	// Backend.Port: 70000: expected a UDP port, 1 to 65535, or 0 for 8472
}
