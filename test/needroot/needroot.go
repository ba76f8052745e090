// Package needroot says which tests need root: those that make network namespaces, mounts, control
// groups or other users' processes.
//
// make unit runs the rest without these rights: a test that forgets to say so fails there.
package needroot

import (
	"os"
	"testing"
)

// Skip skips the test or benchmark unless root runs it, and with -short. What makes a namespace, a
// mount or the like for tests calls it first.
func Skip(t testing.TB) {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("needs root, which tests don't have with -short")
	case os.Geteuid() != 0:
		t.Skip("needs root")
	}
}

// SkipOthers skips the test for users other than root. It is for what asks who its peer is and
// takes orders from root only: that takes no right, so that make unit runs it where root runs make
// unit.
func SkipOthers(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs to be root, to be obeyed")
	}
}
