// Package plugins pins the version of the CNI project's plugins that labs wire pods with. The
// module has no code: its go.mod names the programs, which package assets builds.
package plugins
