package spec_test

import (
	"go/build"
	"strings"
	"testing"
)

// TestSharesNoCode: an independent reading imports nothing of what it is held against.
func TestSharesNoCode(t *testing.T) {
	t.Parallel()
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pkg.Imports {
		if strings.HasPrefix(path, "github.com/sluice-net/") {
			t.Errorf("the specification imports %s", path)
		}
	}
}
