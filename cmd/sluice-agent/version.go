package main

import (
	"context"
	"fmt"
	"runtime"
)

// version is the release's name. The linker sets it: -X main.version=v1.2.3.
var version = "devel"

func runVersion(context.Context, []string) error {
	fmt.Printf("sluice-agent %s (%s, %s)\n", version, runtime.Version(), runtime.GOARCH)
	return nil
}
