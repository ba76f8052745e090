// Package answers says what a node's policies do: whether a connection is allowed and why
// ([WhyHandler]), which ones there are ([WhyLiveHandler]), and whether the kernel does what the
// policies mean ([Verifier]). It asks the Enforcer, the kernel, and, about Services, the API
// server, and changes nothing.
package answers
