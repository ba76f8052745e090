// Package process starts the programs of a lab, so that none outlives the process that started it,
// and records them, so that what is left all the same can be found and killed.
package process
