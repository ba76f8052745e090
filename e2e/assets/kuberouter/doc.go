// Package kuberouter pins the version of kube-router that benchmarks compare with. The module has
// no code: its go.mod names the program, which package assets builds. It is a module of its own
// because it requires other Kubernetes libraries.
package kuberouter
