package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// runSBOM writes a CycloneDX bill of materials of Go binaries: what the linker recorded in each of
// them, which is what went into it, and not what its go.mod asked for. The same binaries give the
// same bytes: there is neither a time nor a serial number.
//
// An image needs no copy of it inside: scanners read the same record from the binaries themselves.
func runSBOM(args []string) error {
	flags := flag.NewFlagSet("image sbom", flag.ContinueOnError)
	output := flags.String("output", "", "the file to write")
	name := flags.String("name", "", "the name of what the binaries make up")
	version := flags.String("version", "", "its version")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *output == "" || *name == "" || *version == "" || flags.NArg() == 0 {
		return errors.New("-output, -name, -version and at least one binary are needed")
	}
	b := bill{components: map[string]cdx.Component{}, needs: map[string][]string{}}
	root := cdx.Component{BOMRef: *name, Type: cdx.ComponentTypeContainer, Name: *name,
		Version: *version}
	for _, path := range flags.Args() {
		ref, err := b.addBinary(path, *version)
		if err != nil {
			return err
		}
		b.needs[root.BOMRef] = append(b.needs[root.BOMRef], ref)
	}
	return writeFile(*output, func(f *os.File) error {
		return cdx.NewBOMEncoder(f, cdx.BOMFileFormatJSON).SetPretty(true).
			EncodeVersion(b.bom(root), cdx.SpecVersion1_6)
	})
}

// bill collects the components of several binaries, each once.
type bill struct {
	components map[string]cdx.Component // by reference
	needs      map[string][]string      // the references each reference depends on
}

// addBinary adds a Go binary and everything in it.
func (b *bill) addBinary(path, version string) (ref string, err error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading what %s was built from: %w", path, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	properties := []cdx.Property{{Name: "go:package", Value: info.Path}}
	for _, setting := range info.Settings {
		properties = append(properties,
			cdx.Property{Name: "go:build:" + setting.Key, Value: setting.Value})
	}
	binary := filepath.Base(path)
	ref = "file:" + binary
	if _, taken := b.components[ref]; taken {
		return "", fmt.Errorf("there are two binaries %s", binary)
	}
	b.components[ref] = cdx.Component{
		BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: binary, Version: version,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: &properties,
	}
	b.need(ref, "std", strings.TrimPrefix(info.GoVersion, "go"), "")
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = replacement(module)
		}
		b.need(ref, module.Path, module.Version, module.Sum)
	}
	return ref, nil
}

// replacement is what a replace directive put in a module's place. A folder has no version of its
// own: it stands for the module it replaces.
func replacement(module *debug.Module) *debug.Module {
	if module.Replace.Version == "" {
		return &debug.Module{Path: module.Path, Version: module.Version}
	}
	return module.Replace
}

// need adds a module, and that ref depends on it. Package URLs name the standard library
// golang/std.
func (b *bill) need(ref, path, version, sum string) {
	purl := "pkg:golang/" + path + "@" + version
	component := cdx.Component{
		BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: path, Version: version,
		PackageURL: purl, Scope: cdx.ScopeRequired,
	}
	if sum != "" {
		// As in go.sum. It hashes a list of hashes, so it is none of the hashes CycloneDX knows.
		component.Properties = &[]cdx.Property{{Name: "go:sum", Value: sum}}
	}
	b.components[purl] = component
	b.needs[ref] = append(b.needs[ref], purl)
}

// bom puts everything in an order that doesn't change.
func (b *bill) bom(root cdx.Component) *cdx.BOM {
	refs := make([]string, 0, len(b.components))
	for ref := range b.components {
		refs = append(refs, ref)
	}
	slices.Sort(refs)
	components := make([]cdx.Component, 0, len(refs))
	dependencies := make([]cdx.Dependency, 0, len(refs)+1)
	for _, ref := range refs {
		components = append(components, b.components[ref])
	}
	for _, ref := range append([]string{root.BOMRef}, refs...) {
		dependency := cdx.Dependency{Ref: ref}
		if needs := b.needs[ref]; len(needs) > 0 {
			slices.Sort(needs)
			needs = slices.Compact(needs)
			dependency.Dependencies = &needs
		}
		dependencies = append(dependencies, dependency)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &root}
	bom.Components, bom.Dependencies = &components, &dependencies
	return bom
}
