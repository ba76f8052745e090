// Package containerd pins the version of the container runtime in the image of kind nodes, where
// that has to be built. The module has no code: its go.mod names the programs, which package assets
// builds.
package containerd
