// Package fair bounds the log lines and Events that each source (a namespace's policies, another
// node) can cause, so that no source crowds out those about others.
package fair
