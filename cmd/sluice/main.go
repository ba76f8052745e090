// Command sluice is the CNI plugin: a container runtime executes it to put pods on the network of
// this node. It has no flags but --version; see package cni.
package main

import (
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/sluice-net/sluice/cni/plugin"
)

// version is the release's name. The linker sets it: -X main.version=v1.2.3.
var version = "devel"

func main() {
	about := "CNI plugin sluice " + version
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(about)
		return
	}
	skel.PluginMainFuncs(plugin.Funcs(), plugin.Versions(), about)
}
