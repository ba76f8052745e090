// Package kubernetes pins the version of Kubernetes that labs and kind clusters run. The module has
// no code: its go.mod names the programs, which package assets builds. It is a module of its own so
// that Kubernetes' requirements and replacements reach no other build.
package kubernetes
