// Package kind pins the version of kind, which makes clusters of Docker containers. The module has
// no code: its go.mod names the program, which the Makefile builds; package kind of e2e also takes
// the files of its node image from there.
package kind
