package kernels_test

import (
	"fmt"

	"github.com/sluice-net/sluice/internal/kernels"
)

func ExampleIdentify() {
	k := kernels.Identify("5.10.0-32-amd64", "#1 SMP Debian 5.10.223-1 (2024-08-10)")
	fmt.Println(k, k.TooOld())
	k = kernels.Identify("5.15.0-119-generic", "#129-Ubuntu SMP Fri Aug 2 19:25:20 UTC 2024")
	fmt.Println(k, k.TooOld(), k.Comparable)
	// Output:
	// 5.10.0-32-amd64 (Linux 5.10.223) true
	// 5.15.0-119-generic false false
}
