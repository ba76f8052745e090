// Package framework is for suites against a real cluster: it finds the cluster, makes namespaces
// and pods in it, connects from one pod to another, and reports the cluster's state when a spec
// fails. It alone talks to the API server, to containers and to Docker; a suite says what it wants
// and what must hold.
//
// The model: one cluster (Cluster), named by KUBECONFIG. A pod (Pod) runs the test program of
// e2e/cmd/testpod, and everything about the network is learned by running that program: inside the
// pod through the API server's exec, or in a container beside the nodes (Outside) where the cluster
// is one of kind's. Ginkgo's DeferCleanup removes all that a spec makes after it; before that, if
// the spec failed, its diagnostics are written. Names are generated, so suites can run beside each
// other.
//
// Functions that take a context poll until it ends or their own time limit passes, and then fail
// the spec. All of them are safe for concurrent use unless they say otherwise, but a goroutine that
// calls them needs Ginkgo's GinkgoRecover.
//
// The environment:
//
//	KUBECONFIG             the cluster; without it suites skip
//	SLUICE_KIND_CLUSTER    the name of the kind cluster that it is, if it is one: its nodes are
//	                       containers of the local Docker
//	SLUICE_E2E_WORKERS     how many nodes take any pod, 1 by default: specs wait for so many, and
//	                       skip for want of a second one only if this doesn't promise it
//	SLUICE_E2E_IMAGE       the test program's image, sluice-net/e2e:v0.1.0 by default, present on
//	                       every node
//	SLUICE_E2E_ARTIFACTS   a folder for the diagnostics of failed specs; without it they are in
//	                       the report only
//
// It is not for the lab (package lab), which has no kubelet and no containers.
package framework
