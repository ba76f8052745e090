package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func readBill(t *testing.T, binaries ...string) ([]byte, *cdx.BOM) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.cdx.json")
	if err := runSBOM(append([]string{"-output", file, "-name", "sluice", "-version", "v1"},
		binaries...)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).
		Decode(&bom); err != nil {
		t.Fatal(err)
	}
	return data, &bom
}

// The test's own program is a Go binary whose modules are known.
func TestSBOM(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	first, bom := readBill(t, self, copied)
	second, _ := readBill(t, copied, self)
	if !bytes.Equal(first, second) {
		t.Error("the order of the binaries makes a difference")
	}
	refs := map[string]bool{}
	var names []string
	for _, c := range *bom.Components {
		if refs[c.BOMRef] {
			t.Errorf("%s is listed twice", c.BOMRef)
		}
		refs[c.BOMRef] = true
		names = append(names, c.Name)
	}
	for _, want := range []string{"copy", filepath.Base(self), "std",
		"github.com/google/go-containerregistry"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s isn't among %v", want, names)
		}
	}
	for _, dependency := range *bom.Dependencies {
		if dependency.Ref == "file:copy" && !slices.ContainsFunc(*dependency.Dependencies,
			func(ref string) bool {
				return strings.HasPrefix(ref, "pkg:golang/github.com/google/go-containerregistry@v")
			}) {
			t.Errorf("copy depends on %v", *dependency.Dependencies)
		}
	}
	if bom.SerialNumber != "" || bom.Metadata.Timestamp != "" {
		t.Error("the bill differs from run to run")
	}
}

func TestSBOMRefusesWhatIsNoGoBinary(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x")
	if err := runSBOM([]string{"-output", file, "-name", "x", "-version", "v1",
		"sbom_test.go"}); err == nil {
		t.Error("got no error")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file was written")
	}
}
