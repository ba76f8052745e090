// Package multus pins the version of multus-cni that tests run. The module has no code: its go.mod
// names the program, which package assets builds. It is a module of its own because it requires
// older Kubernetes libraries.
package multus
