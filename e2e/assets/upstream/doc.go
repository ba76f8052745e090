// Package upstream is Kubernetes' own specs of the network, as a test binary: an opinion on Sluice
// that isn't Sluice's. Its go.mod also names what these specs run in pods (agnhost), and the
// version of ginkgo that they are written for. hack/upstream builds and runs them. It is a module
// of its own so that Kubernetes' requirements and replacements reach no other build, and go test
// ./... of the others doesn't run it: it needs a cluster.
package upstream
