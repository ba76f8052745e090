// Package wait waits for conditions, tries again, and follows objects of an API server that may be
// away for a while.
package wait
