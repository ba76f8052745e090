// Command sluice is the CNI plugin: a container runtime executes it to put pods on the network of this node. It has no flags; see
// package cni.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"

	"github.com/sluice-net/sluice/cni"
)

func main() {
	skel.PluginMainFuncs(cni.Funcs(), cni.Versions(), "CNI plugin sluice")
}
