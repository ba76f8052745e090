// Package testprogram is what the tests of a cluster and the program in their pods (cmd/testpod)
// say to each other: ports and targets in text, and what the program prints, as JSON.
//
// "connect", "resolve" and "send" print one value ([]Result, Resolved, Sent); ReadLog is not for
// them. "serve", "first" and "watch" print a Report a line, which ReadLog reads from a pod's log.
//
// It has no code that sends anything, and knows nothing of Kubernetes.
package testprogram
