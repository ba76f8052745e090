// Package coredns pins the version of the cluster's DNS server, where the image of kind nodes has
// to be built. The module has no code: its go.mod names the program, which package assets builds.
package coredns
