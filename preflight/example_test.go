package preflight_test

import (
	"fmt"
	"os"

	"github.com/sluice-net/sluice/preflight"
)

// Results are printed a line each; the worst one says whether the node is fit.
func ExampleWrite() {
	results := []preflight.Result{
		{Check: "kernel", Status: preflight.Pass, Found: "6.1.0-18-amd64"},
		{Check: "tunnel", Status: preflight.Fail, Found: "UDP port 8472 is in use",
			Remedy: "end the program that has it"},
	}
	if err := preflight.Write(os.Stdout, results); err != nil {
		fmt.Println(err)
	}
	fmt.Println("worst:", preflight.Worst(results))
	// Output:
	// pass  kernel          6.1.0-18-amd64
	// fail  tunnel          UDP port 8472 is in use. Remedy: end the program that has it
	// 2 checks: 1 passed, 0 warned, 1 failed
	// worst: fail
}
