package spec_test

import (
	"go/build"
	"strings"
	"testing"
)

// TestSharesNoCode: an independent reading imports nothing of what it judges.
func TestSharesNoCode(t *testing.T) {
	t.Parallel()
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pkg.Imports {
		if strings.HasPrefix(path, "github.com/sluice-net/") {
			t.Errorf("the judge imports %s", path)
		}
	}
}
