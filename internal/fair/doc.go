// Package fair bounds what is said about what others cause, a namespace's policies or another node,
// so that none of them crowds out what is said of the rest.
package fair
