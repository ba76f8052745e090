// Package answers says what a node's policies do: whether a connection is allowed and why
// ([WhyHandler]), which ones there are ([WhyLiveHandler]), and whether the kernel does what the
// policies mean ([Verifier]). It asks the Enforcer, the kernel and, for Services, the API server.
// It changes nothing.
package answers
